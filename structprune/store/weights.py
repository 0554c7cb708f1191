"""The weights of a saved network: a safetensors file that plan.json knows by its hash.

Each of the two files names the other: plan.json has the size and SHA-256 of the weights, and the weights' metadata have
the SHA-256 of what the plan does to a network. So files of two runs, a damaged file and a plan that was edited since
are recognised before anything is built from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from .. import strict_json
from ..errors import StoreError
from ..records import Plan

WEIGHTS = "slim.safetensors"
_BOUND = ("groups", "keep", "shapes", "attributes", "statistics", "program")  # what a plan does to a network


class Fingerprint(BaseModel):
    """What plan.json says about the weights file."""

    model_config = ConfigDict(extra="forbid", strict=True)
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def digest(plan: Plan) -> str:
    """The SHA-256 of what `plan` does to a network. What it says about itself (notes, budgets, counts) is left out."""
    bound = [getattr(plan, name) for name in _BOUND]
    bound += [plan.merges] if plan.merges is not None else []  # plans without have the digest that they always had
    return hashlib.sha256(strict_json.dump(bound, sort_keys=True).encode()).hexdigest()


def storable(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors, on the CPU and apart from each other. Raises StoreError for one that can't be stored."""
    copies = {}
    for key, tensor in weights.items():
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise StoreError(f"{key} can't be saved: it is sparse or quantised, and only plain tensors are stored")
        try:
            copies[key] = tensor.detach().cpu().contiguous().clone()
        except (RuntimeError, NotImplementedError) as error:
            raise StoreError(
                f"{key} can't be saved ({_first_line(error)}): give a network with plain weights"
            ) from error
    return copies


def write(path: Path, weights: dict[str, Tensor], plan: Plan) -> Fingerprint:
    """Writes the file at `path`. Raises StoreError for tensors that safetensors can't hold."""
    try:
        save_file(weights, path, {"format": "pt", "plan": digest(plan)})
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise StoreError(f"the weights can't be saved: {_first_line(error)}") from error
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            whole.update(block)
    return Fingerprint(bytes=path.stat().st_size, sha256=whole.hexdigest())


def read(path: Path, plan: Plan, known: Any) -> dict[str, Tensor]:
    """Reads the tensors in `path`, if it is the file that `known`, the plan's fingerprint, describes.

    `known` is None for a plan of the version that had none: then their own metadata must agree.
    Raises StoreError.
    """
    fingerprint = None if known is None else _fingerprint(known)
    with path.open("rb") as file:
        if fingerprint is not None and path.stat().st_size != fingerprint.bytes:
            raise Mismatch(_apart(path, f"it has {path.stat().st_size:,} bytes, and {fingerprint.bytes:,} were saved"))
        data = file.read()
    if fingerprint is not None and hashlib.sha256(data).hexdigest() != fingerprint.sha256:
        raise Mismatch(_apart(path, "its hash is not the one that was saved"))
    try:
        metadata = _metadata(data)
        # Copies: their memory starts where torch likes it to, and so the same kernels run as before they were saved.
        tensors = {key: tensor.clone() for key, tensor in load(data).items()}
    except Exception as error:  # whatever safetensors and torch raise for a file that lies
        raise StoreError(f"{path} is damaged: {_first_line(error)}") from error
    made_for = metadata.get("plan")
    if made_for != (None if fingerprint is None else digest(plan)):
        raise Mismatch(
            f"plan.json is not the plan that {path} was saved with: it is of another run or was edited since. Apply an "
            "edited plan by structprune.prune(model, Plan.from_json(...)), and save what that gives"
        )
    return tensors


def tensors_in(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a safetensors file. Raises ValueError, in one line, for one that is damaged."""
    try:
        metadata = _metadata(data)
        return load(data), metadata
    except Exception as error:  # whatever safetensors and torch raise for a file that lies
        raise ValueError(_first_line(error)) from error


class Mismatch(StoreError):
    """Files that do not belong together: or the one was read before, and the other after, another process saved."""


def _apart(path: Path, why: str) -> str:
    return f"{path} is damaged, or is not of the same run as plan.json: {why}. Save the network anew"


def _fingerprint(known: Any) -> Fingerprint:
    try:
        return Fingerprint.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("weights", *first["loc"])))
        raise StoreError(f"plan.json does not say which weights it is of: {place}: {first['msg']}") from None


def _metadata(data: bytes) -> dict[str, Any]:
    """The metadata of a safetensors file. Raises ValueError for a broken header, or one with a key twice."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError(f"a header of {length:,} bytes in a file of {len(data):,}")
    if length > strict_json.MAX_BYTES:
        raise ValueError(f"a header of {length:,} bytes, over the limit of {strict_json.MAX_BYTES:,}")
    header = strict_json.parse(data[8 : 8 + length].decode("utf-8"))
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
