"""Slices parameters and buffers as a plan says, and adapts the numbers of the modules that own them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PlanError
from ..modules import replace_tensors, set_attributes, skeleton_copy, tensors
from ..records import Plan
from ..wrappers import unwrapped
from .graph_form import graph_module, layout_of
from .merging import merged_tensors
from .plan_checks import check, check_numbers


def prune(model: nn.Module, plan: Plan) -> nn.Module:
    """Makes a slim copy of `model`, which stays as it was.

    Args:
        model: the dense network.
        plan: what stays of it; one that was edited by hand is applied if it is sound (see `surgery.check`).

    Returns:
        A network of the same classes, state_dict keys and modes, trainable, which shares no memory with `model`. A plan
        of the graph form makes an `fx.GraphModule` with the same state_dict keys instead, in evaluation mode.

    Raises:
        PlanError: the plan is not sound, or was not made for this architecture.

    Example:
        >>> slim = sp.prune(model, plan)
        >>> slim[0].out_channels == plan.widths["0"]
        True
    """
    model = unwrapped(model)
    check(model, plan)
    dense = tensors(model)
    dense |= merged_tensors(dense, plan)
    new = {key: sliced(tensor.detach(), plan.keep.get(key, {})) for key, tensor in dense.items()}
    if plan.program is not None:
        return graph_module(plan.program, layout_of(model), new)
    slim = skeleton_copy(model)
    replace_tensors(slim, new)
    try:
        set_attributes(slim, plan.attributes)
    except (AttributeError, TypeError, ValueError, KeyError) as error:  # a setter of the model's own
        raise PlanError(f"the plan's numbers can't be set: {type(error).__name__}: {error}") from error
    check_numbers(model, slim)
    return slim


def sliced(tensor: Tensor, axes: dict[str, list[Any]]) -> Tensor:
    """What stays of a parameter, a buffer, or whatever has the shape of one.

    Args:
        tensor: of the dense shape.
        axes: of each axis that is cut the indices that stay, as in `Plan.keep`.

    Returns:
        A tensor of its own.
    """
    for dim, indices in sorted(axes.items()):
        if isinstance(indices[0], list):  # each block of axis 0 keeps its own positions of axis 1
            blocks = tensor.reshape(len(indices), -1, *tensor.shape[1:])
            cut = [b.index_select(1, torch.tensor(i, device=b.device)) for b, i in zip(blocks, indices, strict=True)]
            tensor = torch.cat(cut)
        else:
            tensor = tensor.index_select(int(dim), torch.tensor(indices, device=tensor.device))
    return tensor if axes else tensor.clone()
