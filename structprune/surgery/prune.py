"""Slices parameters and buffers as a plan says, and mends the numbers of the modules that own them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PlanError
from ..modules import replace_tensors, set_attributes, skeleton_copy, tensors, walk
from ..records import Plan
from .graph_form import graph_module, layout_of


def prune(model: nn.Module, plan: Plan) -> nn.Module:
    """A slim copy of `model`: the same classes, state_dict keys and modes, trainable; `model` is left as it was.

    A plan of the graph form makes an `fx.GraphModule` with the same state_dict keys instead, in evaluation mode.

    No memory is shared with `model`. Raises PlanError if the plan was not made for this architecture.
    """
    check(model, plan)
    new = {key: _slice(tensor.detach(), plan.keep.get(key, {})) for key, tensor in tensors(model).items()}
    if plan.program is not None:
        return graph_module(plan.program, layout_of(model), new)
    slim = skeleton_copy(model)
    replace_tensors(slim, new)
    set_attributes(slim, plan.attributes)
    return slim


def check(model: nn.Module, plan: Plan) -> None:
    """Raises PlanError unless every sliced tensor and every mended module is in `model`, at its dense size."""
    try:
        _check(model, plan)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise PlanError(
            f"the plan is malformed ({type(error).__name__}: {error}): make it by structprune.plan"
        ) from error


def _check(model: nn.Module, plan: Plan) -> None:
    state, modules = tensors(model), dict(walk(model))
    for key, axes in plan.keep.items():
        if key not in state:
            raise PlanError(f"the plan slices {key}, which {type(model).__name__} does not have")
        shape = list(state[key].shape)
        if shape != plan.shapes.get(key):
            raise PlanError(
                f"the plan slices {key} of shape {plan.shapes.get(key)}, but here its shape is {shape}: "
                "apply a plan to the dense model that it was made for"
            )
        for dim, indices in axes.items():
            rows = indices if indices and isinstance(indices[0], list) else [indices]
            wrong = any(not r or min(r) < 0 or max(r) >= shape[int(dim)] or len(set(r)) < len(r) for r in rows)
            if wrong or len({len(row) for row in rows}) > 1:
                raise PlanError(f"the plan keeps impossible indices of axis {dim} of {key}, whose shape is {shape}")
    for path, values in plan.attributes.items():
        for name in values:
            if not hasattr(modules.get(path), name):
                raise PlanError(f"the plan sets {path}.{name}, which {type(model).__name__} does not have")


def _slice(tensor: Tensor, axes: dict[str, list[Any]]) -> Tensor:
    for dim, indices in sorted(axes.items()):
        if isinstance(indices[0], list):  # each block of axis 0 keeps its own positions of axis 1
            blocks = tensor.reshape(len(indices), -1, *tensor.shape[1:])
            cut = [b.index_select(1, torch.tensor(i, device=b.device)) for b, i in zip(blocks, indices, strict=True)]
            tensor = torch.cat(cut)
        else:
            tensor = tensor.index_select(int(dim), torch.tensor(indices, device=tensor.device))
    return tensor if axes else tensor.clone()
