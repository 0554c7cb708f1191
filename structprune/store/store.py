"""`save` and `load`."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .. import strict_json
from ..errors import ModelError, PlanError, StoreError
from ..messages import shown
from ..modules import replace_tensors, tensors, walk
from ..plan_schema import PLAN_SCHEMA
from ..records import Plan, pretty_json
from ..surgery import graph_module, layout_of, prune, wrong_shape
from ..wrappers import unwrapped
from . import architecture, atomic_files, weights
from .weights import WEIGHTS

PLAN = "plan.json"
_WAITS = (0.05, 0.2)  # seconds before files that do not belong together are read again


def save(slim: nn.Module, plan: Plan, folder: str | Path) -> Path:
    """Writes `slim.safetensors` and `plan.json`, which appear together, whatever else saves into the folder.

    The weights carry the model's state_dict keys (and buffers that are not persistent, which a state_dict leaves
    out). If the module tree can't be described (see `architecture`), plan.json says why, and `load` then needs
    a dense instance of the model.

    Args:
        slim: what `prune` made.
        plan: the plan that it was made by.
        folder: where to write; it is made if it is not there.

    Returns:
        `folder`.

    Raises:
        PlanError: the plan is not sound.
        StoreError: `slim` is not what the plan makes, or files can't be written.

    Example:
        >>> sorted(file.name for file in sp.save(slim, plan, "slim").iterdir() if file.suffix)
        ['plan.json', 'slim.safetensors']
    """
    folder = _folder(folder)
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file: give a folder to save into")
    if not isinstance(slim, nn.Module):
        raise StoreError(f"slim is a {type(slim).__name__}: give the network that structprune.prune made")
    if not isinstance(plan, Plan):
        raise StoreError(f"plan is a {type(plan).__name__}: give the plan that the slim network was made by")
    slim = unwrapped(slim)
    data = strict_json.parse(plan.to_json())
    _check_shapes(dict(tensors(slim)), plan, "the network", every=False)
    try:
        description, stored = _description(slim, plan)
    except StoreError as error:
        description, stored = {"missing": str(error)}, dict(tensors(slim))
        warnings.warn(f"saved, but {error}: it loads onto a dense instance only, load(folder, model=...)", stacklevel=2)
    storable = weights.storable(stored)

    def write_weights(path: Path) -> None:
        data["architecture"] = description
        data["weights"] = weights.write(path, storable, plan).model_dump()

    def write_plan(path: Path) -> None:
        text = pretty_json(data)
        strict_json.parse(text)  # what can't be read back is not left there
        path.write_text(text, encoding="utf-8")

    try:
        with atomic_files.locked(folder):
            atomic_files.write_all({folder / WEIGHTS: write_weights, folder / PLAN: write_plan})
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder} can't be written: {error}") from error
    return folder


def _description(slim: nn.Module, plan: Plan) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `load` builds the network from, and its tensors. Raises StoreError where it can't be described."""
    if plan.program is not None:
        return {"layout": layout_of(slim)}, dict(tensors(slim))
    description, stored = architecture.describe(slim)
    try:
        strict_json.parse(pretty_json({"architecture": description}))
    except ValueError as error:  # too deep or too large to be read back
        raise StoreError(f"{type(slim).__name__} can't be described in {PLAN}: {error}") from error
    return description, stored


def load(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Loads the slim model that `save` or a run wrote.

    Reads `slim.safetensors` and `plan.json`; no pickle, no tracing, and nothing is written. timm's and torch's classes
    are imported; code of your own that defines the model must be imported already.

    Args:
        folder: the folder of the two files.
        model: a dense instance, if its code can't be imported by name: the plan is applied to a copy of it.

    Returns:
        The network, on the CPU.

    Raises:
        StoreError: files are damaged or of two runs (the plan holds the weights' hash), what the plan keeps was edited
            since, or tensors have other shapes than it says.

    Example:
        >>> torch.equal(sp.load("slim")(x), slim(x))
        True
    """
    folder = _folder(folder)
    if model is not None and not isinstance(model, nn.Module):
        raise StoreError(f"model is a {type(model).__name__}: give a dense instance of the model")
    plan, description, stored = _read(folder)
    _check_shapes(stored, plan, WEIGHTS, every=model is not None)
    if model is not None:
        return _onto(model, plan, stored)
    if not isinstance(description, dict) or "missing" in description:
        reason = description.get("missing") if isinstance(description, dict) else None
        reason = reason if isinstance(reason, str) else "plan.json describes no architecture"
        raise StoreError(f"{reason}. Pass a dense instance of the model: load(folder, model=...)")
    if "layout" in description:
        try:
            return graph_module(plan.program or {}, description["layout"], stored)
        except PlanError as error:
            raise StoreError(f"{folder / PLAN}: {error}") from error
    built = architecture.build(description, stored)
    _check_shapes(dict(tensors(built)), plan, "the network that plan.json describes", every=False)
    _check_attributes(built, plan)
    return built


def _folder(folder: str | Path) -> Path:
    if not isinstance(folder, (str, os.PathLike)) or not os.fspath(folder):
        raise StoreError(f"folder is {shown(folder)}: give the path of a folder")
    try:
        path = Path(folder)
        path.is_dir()
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{shown(str(folder))} is not a path ({error}): give a folder") from error
    return path


def _read(folder: Path) -> tuple[Plan, Any, dict[str, Tensor]]:
    """The plan, the description of the architecture and the tensors. Another process may save meanwhile: files that do
    not belong together are read again while that may be why."""
    for wait in (*_WAITS, None):
        before = _stamp(folder)
        try:
            return _read_once(folder)
        except weights.Mismatch as error:
            if wait is None or (_stamp(folder) == before and not (folder / atomic_files.LOCK).exists()):
                raise StoreError(str(error)) from None
            time.sleep(wait)
    raise AssertionError("the last turn returns or raises")


def _stamp(folder: Path) -> list[tuple[int, int, int]]:
    try:
        states = [(folder / name).stat() for name in (WEIGHTS, PLAN)]
    except (OSError, ValueError):
        return []
    return [(entry.st_ino, entry.st_mtime_ns, entry.st_size) for entry in states]


def _read_once(folder: Path) -> tuple[Plan, Any, dict[str, Tensor]]:
    for name in (WEIGHTS, PLAN):
        if not (folder / name).is_file():
            raise StoreError(f"{folder} holds no {name}: give the folder of a finished run or of structprune.save")
    try:
        data = strict_json.read(folder / PLAN)
        plan = Plan.from_data(data)
        known = data.get("weights")
        if known is None and data["schema"] == PLAN_SCHEMA:
            raise StoreError(
                f"{folder / PLAN} was not saved with {WEIGHTS}: it does not name it by its hash. Save the network anew"
            )
        stored = weights.read(folder / WEIGHTS, plan, known)
    except (PlanError, ValueError) as error:
        raise StoreError(f"{folder / PLAN}: {error}") from error
    except OSError as error:
        raise StoreError(f"{folder} can't be read: {error}") from error
    if known is None:
        warnings.warn(f"{folder} was saved by a version that kept no hash of the weights: save it anew", stacklevel=4)
    return plan, data.get("architecture"), stored


def _check_shapes(stored: dict[str, Tensor], plan: Plan, where: str, every: bool) -> None:
    if wrong := wrong_shape(stored, plan, where, every):
        raise StoreError(wrong)


def _check_attributes(built: nn.Module, plan: Plan) -> None:
    modules = dict(walk(built))
    for path, values in plan.attributes.items():
        for name, value in values.items():
            observed = _held(modules.get(path), name, value)
            if (list(observed) if isinstance(observed, tuple) else observed) != value:
                where = f"{path}.{name}".lstrip(".")
                raise StoreError(f"{where} is {shown(observed)} in the architecture, and {shown(value)} in the plan")


def _held(holder: Any, name: str, missing: Any) -> Any:
    """What stands in a module under a path of names, past any property: nothing of the network's code is called."""
    for part in name.split("."):
        inside = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
        if part not in inside:
            return missing
        holder = inside[part]
    return holder


def _onto(model: nn.Module, plan: Plan, stored: dict[str, Tensor]) -> nn.Module:
    try:
        slim = prune(model, plan)
    except (PlanError, ModelError) as error:
        raise StoreError(f"the saved plan can't be applied to model: {error}") from error
    state = tensors(slim)
    for key, tensor in state.items():
        if key not in stored or stored[key].shape != tensor.shape:
            shape = tuple(stored[key].shape) if key in stored else "absent"
            raise StoreError(f"{key} is {shape} in {WEIGHTS}, and the plan makes it {tuple(tensor.shape)}")
    replace_tensors(slim, {key: stored[key].to(state[key].device) for key in state})
    return slim
