"""`save` and `load`."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import PlanError, StoreError
from ..modules import replace_tensors, tensors
from ..records import Plan, pretty_json
from ..surgery import graph_module, layout_of, prune
from ..wrappers import unwrapped
from . import architecture, files

WEIGHTS, PLAN = "slim.safetensors", "plan.json"


def save(slim: nn.Module, plan: Plan, folder: str | Path) -> Path:
    """Writes `slim.safetensors` and `plan.json` into `folder` and returns it.

    The weights carry the model's state_dict keys (and buffers that are not persistent, which a state_dict leaves
    out). If the module tree can't be described (see `architecture`), plan.json says why, and `load` then needs
    a dense instance of the model.
    """
    slim, folder = unwrapped(slim), Path(folder)
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file: give a folder to save into")
    data = json.loads(plan.to_json())
    try:
        if plan.program is not None:
            data["architecture"], weights = {"layout": layout_of(slim)}, dict(tensors(slim))
        else:
            data["architecture"], weights = architecture.describe(slim)
    except StoreError as error:
        data["architecture"], weights = {"missing": str(error)}, dict(tensors(slim))
    contiguous = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in weights.items()}
    files.write(folder / WEIGHTS, lambda path: save_file(contiguous, path))
    files.write_text(folder / PLAN, pretty_json(data))
    return folder


def load(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The slim model that `save` or a run wrote into `folder`, on the CPU.

    Reads `slim.safetensors` and `plan.json`; no pickle, no tracing. timm's and torch's classes are imported; code of
    your own that defines the model must be imported already. Where that can't work, pass a dense instance as
    `model`, and the plan is applied to a copy of it.
    Raises StoreError.
    """
    folder = Path(folder)
    for name in (WEIGHTS, PLAN):
        if not (folder / name).is_file():
            raise StoreError(f"{folder} holds no {name}: give the folder of a finished run or of structprune.save")
    try:
        weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{folder / WEIGHTS} is damaged: {error}") from error
    try:
        text = (folder / PLAN).read_text(encoding="utf-8")
        plan = Plan.from_json(text)
    except (UnicodeDecodeError, PlanError) as error:
        raise StoreError(f"{folder / PLAN}: {error}") from error
    if model is not None and not isinstance(model, nn.Module):
        raise StoreError(f"model is a {type(model).__name__}: give a dense instance of the model")
    if model is not None:
        return _onto(model, plan, weights)
    description = json.loads(text).get("architecture") or {"missing": "plan.json describes no architecture"}
    if "missing" in description:
        raise StoreError(f"{description['missing']}. Pass a dense instance of the model: load(folder, model=...)")
    if "layout" in description:
        try:
            return graph_module(plan.program or {}, description["layout"], weights)
        except PlanError as error:
            raise StoreError(f"{folder / PLAN}: {error}") from error
    return architecture.build(description, weights)


def _onto(model: nn.Module, plan: Plan, weights: dict[str, Tensor]) -> nn.Module:
    slim = prune(model, plan)
    state = tensors(slim)
    for key, tensor in state.items():
        if key not in weights or weights[key].shape != tensor.shape:
            found = tuple(weights[key].shape) if key in weights else "absent"
            raise StoreError(f"{key} is {found} in {WEIGHTS}, and the plan makes it {tuple(tensor.shape)}")
    replace_tensors(slim, {key: weights[key].to(state[key].device) for key in state})
    return slim
