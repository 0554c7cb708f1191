"""The masked reference: the dense network with every removed filter and kernel set to zero.

It is the user's own module at its own widths, run by plain PyTorch, and is made from `plan.keep` alone. A
removed channel then meets zero weights in every consumer, so it adds nothing, whatever its value on the way
(a BatchNorm's shift, sigmoid(0) = 0.5): the masked network computes what the slim one must compute. Vectors
(biases, normalisation, statistics) stay as they are: a zero there may be a divisor, and changes nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..modules import replace_tensors, skeleton_copy, tensors
from ..records import Plan


def masked(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of the dense `model` whose removed filters and kernels are zero."""
    copy = skeleton_copy(model)
    weights = {key: tensor.detach() for key, tensor in tensors(model).items() if tensor.dim() > 1}
    cut = {key: axes for key, axes in plan.keep.items() if key in weights}
    replace_tensors(copy, {key: weights[key] * _mask(weights[key], axes) for key, axes in cut.items()})
    return copy


def expanded(model: nn.Module, slim: nn.Module, plan: Plan) -> nn.Module:
    """A copy of the dense architecture that holds the slim network's weights in their old places.

    Between them filters and kernels are zero, and vectors keep the dense network's values. For a slim network that
    was trained after surgery: this is the masked network that was trained with it.
    """
    copy = skeleton_copy(model)
    small = tensors(slim)
    new = {}
    for key, tensor in tensors(model).items():
        axes = plan.keep.get(key)
        if axes is None:
            new[key] = small[key].detach().clone()
            continue
        full = torch.zeros_like(tensor) if tensor.dim() > 1 else tensor.detach().clone()
        full[_index(tuple(tensor.shape), axes)] = small[key].detach()
        new[key] = full
    replace_tensors(copy, new)
    return copy


def _index(shape: tuple[int, ...], axes: dict[str, list[int]]) -> tuple[Tensor, ...]:
    """The kept positions as one index a axis, shaped so that they broadcast to a grid."""
    lines = [torch.tensor(axes.get(str(d), list(range(size)))) for d, size in enumerate(shape)]
    return tuple(line.reshape([-1 if i == d else 1 for i in range(len(shape))]) for d, line in enumerate(lines))


def _mask(tensor: Tensor, axes: dict[str, list[int]]) -> Tensor:
    mask = torch.ones_like(tensor)
    for dim, indices in axes.items():
        line = torch.zeros(tensor.shape[int(dim)], dtype=tensor.dtype, device=tensor.device)
        line[indices] = 1
        shape = [1] * tensor.dim()
        shape[int(dim)] = -1
        mask *= line.reshape(shape)
    return mask
