"""Ops that read or write positions by their numbers: what is numbered stays, the other axes pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..flow import Flow, Unsupported, Value
from ..units import Axis
from .pointwise import broadcast, pointwise
from .table import rule

_REASON = "picks channels by their numbers"


@rule("embedding")
def embedding(flow: Flow, weight: Value, index: Value, *_: Any, **__: Any) -> Value:
    flow.freeze([weight.axes[0], *index.axes], _REASON)
    flow.attribute(weight, "embedding_dim", weight.axes[1])
    return Value(tuple(flow.shape), (*(None,) * len(index.shape), *weight.axes[1:]))


@rule("index_select", "index_fill")
def index_select(flow: Flow, x: Value, dim: int, index: Value, *_: Any) -> Value:
    flow.freeze([x.axes[dim], *index.axes], _REASON)
    return _without(x, dim, flow.shape)


@rule("index_add", "index_copy")
def index_add(flow: Flow, x: Value, dim: int, index: Value, source: Value, **_: Any) -> Value:
    """`source` is written to the places `index` of axis `dim`; the other axes are those of `x`."""
    flow.freeze([x.axes[dim], source.axes[dim], *index.axes], _REASON)
    for d in range(len(x.shape)):
        if d != dim % len(x.shape):
            flow.tie(x.axes[d], source.axes[d])
    return _without(x, dim, flow.shape)


@rule("gather", "scatter", "scatter_add", "scatter_reduce")
def gather(flow: Flow, x: Value, dim: int, index: Value, *arguments: Any, **_: Any) -> Value:
    """`index` names a place of axis `dim` for each position of the other axes, so they are coupled with its own."""
    tensors = [x, index, *(a for a in arguments if isinstance(a, Value) and a.shape)]
    flow.freeze([value.axes[dim] for value in tensors], _REASON)
    axes = list(_without(x, dim, x.shape).axes)
    for d in range(len(x.shape)):
        for other in tensors[1:] if d != dim % len(x.shape) else ():
            if other.shape[d] != x.shape[d]:
                flow.freeze([axes[d], other.axes[d]], "reads or writes a part of these channels")
                axes[d] = None
            else:
                axes[d] = flow.tie(axes[d], other.axes[d])
    return Value(tuple(flow.shape), tuple(axes))


@rule("take_along_dim")
def take_along_dim(flow: Flow, x: Value, index: Value, *_: Any, **__: Any) -> Value:
    flow.freeze([*x.axes, *index.axes], _REASON)
    return Value.fixed(flow.shape)


@rule("index")
def index(flow: Flow, x: Value, indices: Sequence[Value | None]) -> Value:
    axes, at, new = _indexed(flow, x, indices)
    rest = [axis for d, axis in enumerate(axes) if d not in at]
    place = at[0] if at == list(range(at[0], at[-1] + 1)) else 0
    if len(rest) + new != len(flow.shape):
        raise Unsupported("picks by a mask")
    return Value(tuple(flow.shape), (*rest[:place], *(None,) * new, *rest[place:]))


@rule("index_put")
def index_put(flow: Flow, x: Value, indices: Sequence[Value | None], values: Value, *_: Any) -> Value:
    """`x[index] = values`; a mask as large as `x` writes to each channel where it says so."""
    one = all(size == 1 for size in values.shape)
    if len(indices) == 1 and indices[0] is not None and indices[0].shape == x.shape and one:
        return pointwise(flow, x, indices[0], values)
    axes, at, new = _indexed(flow, x, indices)
    rest = [d for d in range(len(axes)) if d not in at]
    ...
