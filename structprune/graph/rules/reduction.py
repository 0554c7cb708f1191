"""Reductions, pooling, softmax and padding: fine over axes that nothing is removed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..flow import Flow, Unsupported, Value
from .table import rule


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d")
@rule("adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d")
@rule("upsample_bicubic2d", "upsample_nearest1d", "upsample_nearest3d", "upsample_linear1d", "upsample_trilinear3d")
def spatial(flow: Flow, x: Value, *_: Any, **__: Any) -> Value | list[Value]:
    """Mixes positions of the trailing axes only; every other axis passes through."""
    shapes = flow.shape if isinstance(flow.shape, list) else [flow.shape]
    made = [
        Value(tuple(s), tuple(a if n == m else None for a, n, m in zip(x.axes, x.shape, s, strict=True)))
        for s in shapes
    ]
    mixed = int(flow.op[-2])  # the op's name ends in 1d, 2d or 3d
    if any(axis is not None for axis in x.axes[-mixed:]):
        raise Unsupported("mixes positions of an axis that carries channels")
    return made if isinstance(flow.shape, list) else made[0]


@rule("mean", "sum", "amax", "amin", "var", "std", "logsumexp")
def reduce(flow: Flow, x: Value, dims: Any = None, *_: Any, **__: Any) -> Value:
    rank = len(x.shape)
    if not isinstance(dims, (list, tuple, int)) or isinstance(dims, bool):
        dims = list(range(rank))
    over = {d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank))}
    if any(x.axes[d] is not None for d in over):
        raise Unsupported("takes a statistic over the channels themselves")
    kept = [None if d in over else x.axes[d] for d in range(rank) if len(flow.shape) == rank or d not in over]
    return Value(tuple(flow.shape), tuple(kept))


@rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def softmax(flow: Flow, x: Value, dim: int, *_: Any, **__: Any) -> Value:
    if x.axes[dim] is not None:
        raise Unsupported("normalises over the channels themselves")
    return Value(tuple(flow.shape), x.axes)


@rule("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def pad(flow: Flow, x: Value, widths: Sequence[int], *_: Any, **__: Any) -> Value:
    rank = len(x.shape)
    padded = {rank - 1 - i // 2 for i, width in enumerate(widths) if width}
    if any(x.axes[d] is not None for d in padded):
        raise Unsupported("pads the channel axis")
    return Value(tuple(flow.shape), x.axes)
