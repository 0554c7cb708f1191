"""Reductions, pooling, normalisation and padding.

Over axes that nothing is removed from they are like any other op. Over channels they take a statistic, which in the
slim network is that of the channels left: such groups are not `exact`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import fx

from ...ops.provenance import Number, Source
from ...ops.record import op, rule
from .. import constants, elementwise, rewrites
from ..axes import Axis, concatenate
from ..flow import Attribute, Flow, Statistic, Unsupported
from ..values import Value

# How many of the last axes an op mixes.
_MIXED = {
    1: "max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d upsample_nearest1d upsample_linear1d "
    "_upsample_nearest_exact1d",
    2: "max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d max_pool2d_with_indices lp_pool2d "
    "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "_upsample_nearest_exact2d",
    3: "max_pool3d avg_pool3d adaptive_avg_pool3d adaptive_max_pool3d upsample_nearest3d upsample_trilinear3d "
    "_upsample_nearest_exact3d",
}
_MIXES = {name: axes for axes, names in _MIXED.items() for name in names.split()}
_AVERAGES = ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
_WITH_PLACES = ("max_pool2d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")


@op(*_AVERAGES, masked=constants.zeros_stay, effect="average")
@op(*_WITH_PLACES, masked=constants.picked)
@op(*(name for name in _MIXES if name not in (*_AVERAGES, *_WITH_PLACES)), masked=constants.zeros_stay)
def spatial(flow: Flow, x: Value, *_: Any, **__: Any) -> Value | list[Value]:
    """Mixes positions of the trailing axes only; every other axis passes through."""
    shapes = flow.shape if isinstance(flow.shape, list) else [flow.shape]
    mixed = _MIXES[flow.op]
    flow.freeze(x.axes[-mixed:], "mixes positions of an axis that carries channels")
    kept = x.axes[: len(x.shape) - mixed]
    values = [Value(tuple(s), (*kept, *(None,) * mixed)) for s in shapes]
    return values if isinstance(flow.shape, list) else values[0]


@op("max_unpool2d", "max_unpool3d", masked=constants.zeros_of_first)
def max_unpool(flow: Flow, x: Value, places: Value, *_: Any) -> Value:
    """Puts each channel's pixels back where a pooling took them from."""
    channel = len(x.shape) - {"max_unpool2d": 2, "max_unpool3d": 3}[flow.op] - 1
    flow.freeze([*x.axes[:channel], *places.axes[:channel]], "puts samples back where a pooling took them from")
    return _spatial(flow, x, flow.tie(x.axes[channel], places.axes[channel]), channel)


@op("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", masked=constants.zeros_of_first)
def grid_sampler(flow: Flow, x: Value, grid: Value, *_: Any) -> Value:
    """Every channel is sampled at the places of one grid."""
    flow.freeze([x.axes[0], *grid.axes], "samples at places that are channels")
    return _spatial(flow, x, x.axes[1], 1)


_FOURIER = {
    1: ("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft"),
    2: ("fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2"),
    None: ("fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn"),  # all axes, or as many as sizes are given
}
_TRANSFORMED = {name: axes for axes, names in _FOURIER.items() for name in names}


@op(*_TRANSFORMED, masked=constants.zeros_stay)
def fourier(flow: Flow, x: Value, size: Any = None, dim: Any = None, *_: Any) -> Value:
    """Mixes the places along the axes that it transforms; every other axis passes."""
    if dim is None:
        dim = range(-(_TRANSFORMED[flow.op] or len(size or x.shape)), 0)
    mixed = {d % len(x.shape) for d in ([dim] if isinstance(dim, int) else dim)}
    if any(x.axes[d] is not None for d in mixed):
        raise Unsupported("transforms along an axis that carries channels")
    return Value(tuple(flow.shape), x.axes)


def _spatial(flow: Flow, x: Value, axis: Axis, channel: int) -> Value:
    flow.freeze(x.axes[channel + 1 :], "mixes positions of an axis that carries channels")
    return Value(tuple(flow.shape), tuple(axis if d == channel else None for d in range(len(flow.shape))))


@op("mean", masked=constants.zeros_stay, effect="mean")
@op(
    *("sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "all", "any", "var_mean", "std_mean", "prod"),
    *("count_nonzero", "nansum", "nanmean", "linalg_norm"),
    masked=constants.zeros_stay,
)
@op("max", "min", masked=elementwise.larger)
@op("median", "nanmedian", "mode", "kthvalue", masked=constants.picked)
@rule("logsumexp", "argmax", "argmin", "aminmax")
def reduce(flow: Flow, x: Value, *arguments: Any, **options: Any) -> Value | list[Value]:
    """Over given axes or all; a statistic where one of them carries channels."""
    if flow.op in ("max", "min") and arguments and isinstance(arguments[0], Value):
        from .pointwise import pointwise

        return pointwise(flow, x, *arguments)
    rank = len(x.shape)
    dims = options.get("dim", _dims(flow.op, arguments))
    over = {d % rank for d in ([dims] if isinstance(dims, int) else dims)} if dims is not None and rank else set()
    over = over or set(range(rank))
    live = [d for d in over if x.axes[d] is not None]
    if live and (flow.op in _PICKS or (flow.op in ("max", "min") and isinstance(flow.shape, list))):
        raise Unsupported("picks among the channels themselves, or multiplies them")
    flow.statistic(x, live, reduces=True)
    if flow.op in _SPREADS and math.prod(x.shape[d] for d in over - set(live)) == 1:
        flow.floors += [(axis, 2) for d in live if (axis := x.axes[d]) is not None]  # one channel has no spread
    shapes = flow.shape if isinstance(flow.shape, list) else [flow.shape]
    values = []
    for shape in shapes:
        kept = [None if d in over else x.axes[d] for d in range(rank) if len(shape) == rank or d not in over]
        values.append(Value(tuple(shape), tuple(kept)))
    return values if isinstance(flow.shape, list) else values[0]


_SPREADS = frozenset(("var", "std", "var_mean", "std_mean"))
_PICKS = frozenset(
    ("argmax", "argmin", "prod", "all", "any", "count_nonzero", "median", "nanmedian", "mode", "kthvalue", "aminmax")
)


def _dims(op: str, arguments: Sequence[Any]) -> Any:
    """Which argument names the axes: norms have their order first, variances may have a flag instead."""
    at = 1 if op in ("linalg_vector_norm", "linalg_norm", "norm", "kthvalue") else 0
    dims = arguments[at] if len(arguments) > at else -1 if op in ("mode", "kthvalue") else None
    return None if isinstance(dims, bool) or not isinstance(dims, (list, tuple, int)) else dims


@rule("cosine_similarity")
def cosine_similarity(flow: Flow, a: Value, b: Value, dim: int = 1, *_: Any) -> Value:
    if a.shape != b.shape:
        raise Unsupported("compares tensors of two shapes")
    axes = [flow.tie(p, q) for p, q in zip(a.axes, b.axes, strict=True)]
    over = axes.pop(dim)
    if over is not None:
        both = {place: {dim % len(a.shape): over} for place in (0, 1)}
        flow.statistics.append(Statistic(flow.call, flow.op, flow.module, both, reduces=True, exact=False))
    return Value(tuple(flow.shape), tuple(axes))


@rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def softmax(flow: Flow, x: Value, dim: int, *_: Any, **__: Any) -> Value:
    flow.statistic(x, [dim % len(x.shape)])
    return Value(tuple(flow.shape), x.axes)


@op("layer_norm", "rms_norm", sizes=("normalized_shape",), masked=constants.normed, rewrite=rewrites.normed)
@rule("_fused_rms_norm")
def layer_norm(flow: Flow, x: Value, shape: Sequence[int], *affine: Any, **_: Any) -> Value:
    rank, inner = len(x.shape), len(shape)
    axes = list(x.axes)
    for d in range(rank - inner, rank):
        for value in affine:
            if isinstance(value, Value):
                axes[d] = flow.tie(axes[d], value.axes[d - rank])
                flow.role(value, len(value.shape) - rank + d, "norm")
        flow.follow(shape[d - rank], axes[d])
    flow.statistic(Value(x.shape, tuple(axes)), range(rank - inner, rank))
    return Value(tuple(flow.shape), tuple(axes))


@rule("_weight_norm")
def weight_norm(flow: Flow, direction: Value, length: Value, dim: int = 0) -> Value:
    """A filter's direction over its norm, which is one of the channels left, times its length."""
    axes = list(direction.axes)
    if dim >= 0:  # else one norm of the whole tensor
        axes[dim] = flow.tie(axes[dim], length.axes[dim])
        flow.role(length, dim, "norm")
    over = {0: dict(enumerate(axes)), 1: {dim: axes[dim]} if dim >= 0 else {}}
    live = {place: {d: axis for d, axis in dims.items() if axis is not None} for place, dims in over.items()}
    flow.statistics.append(Statistic(flow.call, flow.op, flow.module, live, reduces=False, exact=False))
    return Value(tuple(flow.shape), tuple(axes))


def _blocks(node: fx.Node) -> tuple[str, ...]:
    """The number of blocks of a GroupNorm follows the width where each channel is one."""
    return ("num_groups",) if node.args[1] == node.meta["val"].shape[1] else ()


@op("group_norm", sizes=_blocks, masked=constants.group_normed, rewrite=rewrites.grouped_norm)
def group_norm(flow: Flow, x: Value, groups: int, *affine: Any, **_: Any) -> Value:
    """Statistics of blocks of channels: blocks stay equally wide, the choice within each is free."""
    axis = x.axes[1]
    for value in affine:
        if isinstance(value, Value):
            axis = flow.tie(axis, value.axes[0])
            flow.role(value, 0, "norm")
            flow.attribute(value, "num_channels", axis)
    if axis is not None and len(axis) == groups:  # each channel by itself
        if not flow.module_form or isinstance(groups, Number):
            flow.follow(groups, axis)
        else:
            flow.freeze([axis], "its number of groups is a number in the model's code")
    elif groups > 1 and axis is not None:
        size = len(axis) // groups
        parts = [axis[i * size : (i + 1) * size] for i in range(groups)]
        flow.balance(parts, "keeps its groups of channels equally wide")
    if axis is not None and len(axis) > groups and math.prod(x.shape[2:]) == 1:
        flow.floors += [(part, 2) for part in np.split(axis, groups)]  # PyTorch refuses statistics of one value
    flow.freeze(x.axes[2:], "takes statistics over another axis that carries channels")
    if axis is not None and len(axis) > groups:
        flow.statistic(x, [1])
    return Value(tuple(flow.shape), (x.axes[0], axis, *(None,) * len(x.axes[2:])))


@op("batch_norm", kind="batch norm", rewrite=rewrites.batch_norm)
@op("_native_batch_norm_legit_no_training", "cudnn_batch_norm", trusts=True)
@op("instance_norm", masked=constants.instance_normed)
def batch_norm(flow: Flow, x: Value, *arguments: Any, **_: Any) -> Value:
    axis = x.axes[1]
    for value in arguments[:4]:
        if isinstance(value, Value):
            axis = flow.tie(axis, value.axes[0])
            flow.role(value, 0, "norm")
            flow.attribute(value, "num_features", value.axes[0])
    flow.attributes.append(Attribute(axis, source=Source(flow.module, "num_features")))  # also without parameters
    over = [d for d in range(len(x.shape)) if d != 1 and (d or flow.op != "instance_norm")]
    live = [a for d in over if (a := x.axes[d]) is not None]
    flow.statistics_in_training += live
    if len(arguments) > 4 and arguments[4]:  # statistics of this batch
        flow.statistic(x, over)
        if len(live) == 1 and math.prod(x.shape[d] for d in over) == len(live[0]):
            flow.floors.append((live[0], 2))  # PyTorch refuses statistics of one value
    return Value(tuple(flow.shape), (x.axes[0], axis, *x.axes[2:]))


@op("cumsum", "cumprod", "msort", masked=constants.zeros_stay)
@op("cummax", "cummin", "sort", "topk", masked=constants.picked)
@op("flip", "roll", "rot90", "fliplr", "flipud", masked=constants.moved)
@rule("logcumsumexp", "argsort")
def ordered(flow: Flow, x: Value, *arguments: Any, **options: Any) -> Value | list[Value]:
    """Fine along an axis from which nothing is removed; that of channels stays."""
    rank = len(x.shape)
    at = {"topk": 1, "roll": 1, "rot90": 1}.get(flow.op, 0)
    default: Any = {"roll": [], "rot90": (0, 1), "fliplr": 1, "flipud": 0, "msort": 0}.get(flow.op, -1)
    dims = options.get("dim", options.get("dims", arguments[at] if len(arguments) > at else default))
    over = {d % rank for d in (dims if isinstance(dims, (list, tuple)) else [dims])}
    if flow.op == "roll" and not over:  # of all places, one after the other
        over = set(range(rank))
    flow.freeze([x.axes[d] for d in over], "depends on the order of the channels themselves")
    axes = [None if d in over else axis for d, axis in enumerate(x.axes)]
    if isinstance(flow.shape, list):
        return [Value(tuple(shape), tuple(axes)) for shape in flow.shape]
    return Value(tuple(flow.shape), tuple(axes))


@op("pad", "constant_pad_nd", sizes=("pad",), masked=constants.padded)
@op("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", masked=constants.repeated)
@op("replication_pad1d", "replication_pad2d", "replication_pad3d", masked=constants.repeated)
def pad(flow: Flow, x: Value, widths: Sequence[int], mode: Any = "constant", *_: Any, **__: Any) -> Value:
    """New positions carry nothing, so what they are added to stays."""
    rank = len(x.shape)
    axes: list[Axis] = list(x.axes)
    for i in range(0, len(widths), 2):
        d = rank - 1 - i // 2
        if axes[d] is None or not (widths[i] or widths[i + 1]):
            continue
        constant = flow.op == "constant_pad_nd" or (flow.op == "pad" and mode == "constant")
        if not constant or min(widths[i], widths[i + 1]) < 0:
            flow.freeze([axes[d]], "repeats or cuts channels")
            axes[d] = None
            continue
        axes[d] = concatenate([None, axes[d], None], [widths[i], x.shape[d], widths[i + 1]])
    return Value(tuple(flow.shape), tuple(axes))
