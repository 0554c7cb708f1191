"""The masked reference: the dense network with every removed filter and kernel set to zero.

It is the user's own module at its own widths, run by plain PyTorch, and is made from the plan's `keep` and
`statistics` alone. A removed channel meets zero weights in every consumer, so it adds nothing, whatever its value on
the way (a BatchNorm's shift, sigmoid(0) = 0.5): the masked network computes what the slim one must compute. Vectors
(biases, normalisation, statistics) stay as they are: a zero there may be a divisor, and changes nothing else.

Where an op takes a statistic over channels (LayerNorm, a softmax over channels), the masked statistic is that of the
channels left: the op gets those alone, and its result goes back to their places.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.capture import op_name
from ..graph.recorder import OpMode
from ..modules import plain_attention, replace_tensors, skeleton_copy, tensors
from ..records import Plan


def masked(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of the dense `model` whose removed filters and kernels are zero, and whose statistics are masked."""
    copy = skeleton_copy(model)
    weights = {key: tensor.detach() for key, tensor in tensors(model).items() if tensor.dim() > 1}
    cut = {key: axes for key, axes in plan.keep.items() if key in weights}
    replace_tensors(copy, {key: weights[key] * _mask(weights[key], axes) for key, axes in cut.items()})
    return MaskedStatistics(copy, plan) if plan.statistics else copy


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
        full[_mask(tensor, axes).bool()] = small[key].detach().reshape(-1)
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


class MaskedStatistics(nn.Module):
    """Runs `model` with the statistics that a plan names taken over the channels left."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.model = model
        self.statistics = {(entry["op"], entry["call"]): entry for entry in plan.statistics}
        plain_attention(model)  # as when the calls were counted

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _Masking(self.statistics) as masking:
            result = self.model(*args, **kwargs)
        if masking.met != len(self.statistics):
            raise RuntimeError(
                f"{masking.met} of the {len(self.statistics)} calls that take statistics over channels were made: the "
                "model does not take the same path as when it was traced"
            )
        return result


class _Masking(OpMode):
    def __init__(self, statistics: dict[tuple[str, int], dict[str, Any]]) -> None:
        super().__init__()
        self.statistics, self.calls, self.met = statistics, Counter[str](), 0

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = op_name(op)
        entry = self.statistics.get((name, self.calls[name]))
        self.calls[name] += 1
        if entry is None:
            return op(*args, **kwargs)
        self.met += 1
        keep = {int(d): torch.tensor(k, device=args[0].device) for d, k in entry["keep"].items()}
        whole = args[0]
        inner = [_narrow(a, whole, keep, entry["op"], i) for i, a in enumerate(args)]
        options = {k: _narrow(v, whole, keep, entry["op"], 1) for k, v in kwargs.items()}
        result = op(*inner, **options)
        return result if entry["reduces"] else _widen(result, whole, keep)


def _narrow(value: Any, whole: Tensor, keep: dict[int, Tensor], op: str, place: int) -> Any:
    """An argument as it is for the channels left: the tensor itself, its norm's weights, the shape that is normed."""
    rank = whole.dim()
    if place == 0:
        for d, kept in keep.items():
            value = value.index_select(d, kept)
        return value
    if op in ("layer_norm", "rms_norm", "_fused_rms_norm"):
        if isinstance(value, Tensor):
            for d, kept in keep.items():
                value = value.index_select(d - rank + value.dim(), kept)
        elif isinstance(value, (list, tuple)):
            value = [len(keep[d]) if (d := rank - len(value) + i) in keep else n for i, n in enumerate(value)]
    elif op == "group_norm" and isinstance(value, Tensor):
        value = value.index_select(0, keep[1])
    return value


def _widen(result: Tensor, whole: Tensor, keep: dict[int, Tensor]) -> Tensor:
    """The result with the channels that are left in their old places, and zeros between them."""
    for d, kept in keep.items():
        full = result.new_zeros([*result.shape[:d], whole.shape[d], *result.shape[d + 1 :]])
        result = full.index_copy(d, kept, result)
    return result
