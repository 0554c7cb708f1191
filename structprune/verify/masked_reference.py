"""The masked reference: the dense network with every removed filter and kernel set to zero.

It is the user's own module at its own widths, run by plain PyTorch, and is made from the plan's `keep` and
`statistics` alone. A removed channel meets zero weights in every consumer, so it adds nothing, whatever its value on
the way (a BatchNorm's shift, sigmoid(0) = 0.5): the masked network computes what the slim one must compute. Vectors
(biases, normalisation, statistics) stay as they are: a zero there may be a divisor, and changes nothing else.

Where an op takes a statistic over channels (LayerNorm, a softmax over channels), the masked statistic is that of the
channels left: the op gets those alone, and its result goes back to their places. So does a contraction (einsum, matmul,
attention's logits) of channels whose value at a zero weight is not zero, with the sum over the channels left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..modules import plain_attention, replace_tensors, skeleton_copy, tensors
from ..records import Plan
from .masking import Statistics, Watched


def masked(model: nn.Module, plan: Plan) -> nn.Module:
    """Makes a masked reference: the dense network whose removed filters and kernels are zero, its statistics masked.

    Args:
        model: The dense network, which is left as it was.
        plan: The plan; its `keep` and `statistics` are all that is read.

    Returns:
        A copy, of the dense shapes.
    """
    copy = skeleton_copy(model)
    weights = {key: tensor.detach() for key, tensor in tensors(model).items() if tensor.dim() > 1}
    cut = {key: axes for key, axes in plan.keep.items() if key in weights}
    replace_tensors(copy, {key: weights[key] * _mask(weights[key], axes) for key, axes in cut.items()})
    statistics: Statistics = {(entry["op"], entry["call"]): entry for entry in plan.statistics}
    if not statistics:
        return copy
    plain_attention(copy)  # as when the calls were counted
    return Watched(copy, statistics)


def refilled(model: nn.Module, plan: Plan, keys: Iterable[str]) -> nn.Module:
    """The masked network with other values in the removed places of these tensors' first axis, and of vectors.

    Filters get back what the dense network has there, vectors another number of the same sign. Where consumers are zero
    for what is removed, nothing else changes by it.
    """
    result, state = masked(model, plan), tensors(model)
    prefix = "model." if isinstance(result, Watched) else ""
    generator, new = torch.Generator().manual_seed(0), {}
    for key in keys:
        tensor, axes = state[key].detach(), plan.keep.get(key, {})
        if "0" not in axes or not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            new[prefix + key] = tensor * _mask(tensor, {d: kept for d, kept in axes.items() if d != "0"})
        else:
            moved = tensor * 1.5 + torch.rand(tensor.shape, generator=generator).to(tensor)
            new[prefix + key] = torch.where(_mask(tensor, axes).bool(), tensor, moved)
    replace_tensors(result, new)
    return result


def expanded(model: nn.Module, slim: nn.Module, plan: Plan) -> nn.Module:
    """Puts a slim network's weights back into their old places in the dense architecture.

    Between them filters and kernels are zero, and vectors keep the dense network's values. For a slim network that
    was trained after surgery, this is the masked network that was trained with it.

    Args:
        model: The dense network, which is left as it was.
        slim: What `prune` made of it, trained since or not.
        plan: The plan.

    Returns:
        A copy of the dense architecture.
    """
    copy = skeleton_copy(model)
    small = tensors(slim)
    new = {}
    for key, tensor in tensors(model).items():
        axes = plan.keep.get(key)
        if axes is None:
            new[key] = small[key].detach().to(tensor.device, copy=True)
            continue
        full = torch.zeros_like(tensor) if tensor.dim() > 1 else tensor.detach().clone()
        full[_mask(tensor, axes).bool()] = small[key].detach().reshape(-1).to(full)
        new[key] = full
    replace_tensors(copy, new)
    return copy


def cut(tensor: Tensor, axes: dict[str, list[Any]]) -> Tensor:
    """What a slim network holds of a dense tensor: the entries that the mask leaves, in their order."""
    if not axes:
        return tensor
    shape = list(tensor.shape)
    for dim, indices in axes.items():
        shape[int(dim)] = len(indices[0]) if isinstance(indices[0], list) else len(indices)
    return tensor[_mask(tensor, axes).bool()].reshape(shape)


def _mask(tensor: Tensor, axes: dict[str, list[Any]]) -> Tensor:
    mask = torch.ones_like(tensor)
    for dim, indices in axes.items():
        blocks = indices if isinstance(indices[0], list) else [indices]
        lines = torch.zeros(len(blocks), tensor.shape[int(dim)], dtype=tensor.dtype, device=tensor.device)
        for line, kept in zip(lines, blocks, strict=True):
            line[kept] = 1
        if len(blocks) > 1:  # one line for each row of axis 0, the same within a block
            lines = lines.repeat_interleave(tensor.shape[0] // len(blocks), dim=0)
        shape = [1] * tensor.dim()
        shape[0], shape[int(dim)] = len(lines) if len(blocks) > 1 else shape[0], tensor.shape[int(dim)]
        mask *= lines.reshape(shape)
    return mask
