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
        with _Masking(self.statistics, double=_is_double(self.model)) as masking:
            result = self.model(*args, **kwargs)
        if masking.met != len(self.statistics):
            raise RuntimeError(
                f"{masking.met} of the {len(self.statistics)} calls that take statistics over channels were made: the "
                "model does not take the same path as when it was traced"
            )
        return result


class Doubled(nn.Module):
    """Runs a model in float64 throughout, also where its own code converts to float32.

    Such a conversion would round, differently in the slim and in the masked network, and hide behind it what differs.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _Masking({}, double=True):
            return self.model(*args, **kwargs)


def _is_double(model: nn.Module) -> bool:
    return any(tensor.dtype == torch.float64 for tensor in model.parameters())


class _Masking(OpMode):
    """Takes statistics over what is left; with `double`, reads float32 as float64 wherever an op is given it."""

    def __init__(self, statistics: dict[tuple[str, int], dict[str, Any]], double: bool) -> None:
        super().__init__()
        self.statistics, self.double = statistics, double
        self.calls, self.met = Counter[str](), 0

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.double:
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
            kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()}
        name = op_name(op)
        entry = self.statistics.get((name, self.calls[name]))
        self.calls[name] += 1
        if entry is None:
            return op(*args, **kwargs)
        self.met += 1
        inner, tensors = list(args), list(args[1] if name == "einsum" else args)
        for place, cut in entry["keep"].items():
            tensors[int(place)] = _selected(tensors[int(place)], cut)
        if name == "einsum":
            inner[1] = tensors
        else:
            inner = tensors
        if name == "scaled_dot_product_attention" and kwargs.get("scale") is None:
            kwargs = {**kwargs, "scale": args[0].shape[-1] ** -0.5}
        if entry["reduces"]:
            return op(*inner, **kwargs)
        if (
            name == "group_norm"
            and len({len(b) for b in _blocks(entry["keep"]["0"]["1"], args[0].shape[1], args[1])}) > 1
        ):
            raise RuntimeError(f"{entry['module']}: the groups of a GroupNorm keep unequal numbers of channels")
        whole, kept = args[0], {int(d): indices for d, indices in entry["keep"]["0"].items()}
        inner[1:] = [_narrow(a, whole.dim(), kept, name) for a in inner[1:]]
        return _widen(op(*inner, **{k: _narrow(v, whole.dim(), kept, name) for k, v in kwargs.items()}), whole, kept)


def _blocks(kept: list[int], width: int, groups: int) -> list[list[int]]:
    return [[i for i in kept if i * groups // width == block] for block in range(groups)]


def _selected(tensor: Tensor, cut: dict[str, list[int]]) -> Tensor:
    for d, indices in cut.items():
        tensor = tensor.index_select(int(d), torch.tensor(indices, device=tensor.device))
    return tensor


def _narrow(value: Any, rank: int, keep: dict[int, list[int]], op: str) -> Any:
    """An argument of a norm as it is for the channels left: its weights, or the shape that is normed."""
    if op in ("layer_norm", "rms_norm", "_fused_rms_norm"):
        if isinstance(value, Tensor):
            return _selected(value, {str(d - rank + value.dim()): indices for d, indices in keep.items()})
        if isinstance(value, (list, tuple)):
            return [len(keep[d]) if (d := rank - len(value) + i) in keep else n for i, n in enumerate(value)]
    if op == "group_norm" and isinstance(value, Tensor):
        return _selected(value, {"0": keep[1]})
    return value


def _widen(result: Tensor, whole: Tensor, keep: dict[int, list[int]]) -> Tensor:
    """The result with the channels that are left in their old places, and zeros between them."""
    for d, indices in keep.items():
        full = result.new_zeros([*result.shape[:d], whole.shape[d], *result.shape[d + 1 :]])
        result = full.index_copy(d, torch.tensor(indices, device=result.device), result)
    return result
