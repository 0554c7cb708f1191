"""Ops that read or write positions by their numbers: what is numbered stays, the other axes pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ops.record import op, rule
from .. import constants
from ..flow import Flow, Produced, Unsupported
from ..values import Value
from .pointwise import broadcast, pointwise

_REASON = "picks channels by their numbers"
LAST = 1 << 30  # the depth of what leads a group only where no other layer makes its channels


@op("embedding", masked=constants.embedded)
def embedding(flow: Flow, weight: Value, index: Value, *_: Any, **__: Any) -> Value:
    flow.freeze([weight.axes[0], *index.axes], _REASON)
    flow.attribute(weight, "embedding_dim", weight.axes[1])
    flow.role(weight, 1, "filter")
    owner = flow.owner(weight, 1)
    if owner is not None and weight.axes[1] is not None:
        flow.produced.append(Produced(LAST, *owner, weight.axes[1]))
    return Value(tuple(flow.shape), (*(None,) * len(index.shape), *weight.axes[1:]))


@op("index_select", masked=constants.first)
@rule("index_fill")
def index_select(flow: Flow, x: Value, dim: int, index: Value, *_: Any) -> Value:
    flow.freeze([x.axes[dim], *index.axes], _REASON)
    return _without(x, dim, flow.shape)


@op("index_add", "index_copy", masked=constants.zeros_stay)
def index_add(flow: Flow, x: Value, dim: int, index: Value, source: Value, **_: Any) -> Value:
    """`source` is written to the places `index` of axis `dim`; the other axes are those of `x`."""
    flow.freeze([x.axes[dim], source.axes[dim], *index.axes], _REASON)
    for d in range(len(x.shape)):
        if d != dim % len(x.shape):
            flow.tie(x.axes[d], source.axes[d])
    return _without(x, dim, flow.shape)


@op("gather", masked=constants.first)
@rule("scatter", "scatter_add", "scatter_reduce")
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


@op("index", masked=constants.first)
def index(flow: Flow, x: Value, indices: Sequence[Value | None]) -> Value:
    picked = {d: where for d, where in enumerate(indices) if where is not None}
    used = list(picked)
    for d, where in picked.items():
        flow.freeze([x.axes[d], *where.axes], _REASON)
    rest = [axis for d, axis in enumerate(x.axes) if d not in used]
    new = len(flow.shape) - len(rest)
    if new != max((len(where.shape) for where in picked.values()), default=0):  # a mask covers as many axes as it has
        raise Unsupported("picks by a mask")
    together = used == list(range(used[0], used[-1] + 1)) if used else True
    at = used[0] if used and together else 0
    return Value(tuple(flow.shape), (*rest[:at], *(None,) * new, *rest[at:]))


@rule("index_put")
def index_put(flow: Flow, x: Value, indices: Sequence[Value | None], values: Value, *_: Any) -> Value:
    """`x[mask] = number`, where the mask may be as large as `x`; or `x[:, places] = values`."""
    picked = [(d, where) for d, where in enumerate(indices) if where is not None]
    (d, where), number = picked[0], all(size == 1 for size in values.shape)
    if number and where.shape == x.shape:
        return pointwise(flow, x, where, values)
    if len(picked) > 1:
        return _put(flow, x, picked, values)
    if not number and len(where.shape) > 1:
        raise Unsupported("writes to places that are picked along several axes")
    axes = list(x.axes)
    for masked in range(d, d + len(where.shape)):  # a mask covers as many axes as it has
        flow.freeze([axes[masked]], _REASON)
        axes[masked] = None
    flow.freeze(where.axes, _REASON)
    broadcast(flow, values, (*x.shape[:d], where.shape[0], *x.shape[d + 1 :]), axes)
    return Value(x.shape, tuple(axes))


def _put(flow: Flow, x: Value, picked: list[tuple[int, Value]], values: Value) -> Value:
    """`x[:, rows, columns] = values`, where rows and columns name one place after the other."""
    dims = [d for d, _ in picked]
    if dims != list(range(dims[0], dims[-1] + 1)) or len({where.shape for _, where in picked}) > 1:
        raise Unsupported("writes to places that are picked along several axes")
    flow.freeze([x.axes[d] for d in dims], _REASON)
    flow.freeze([axis for _, where in picked for axis in where.axes], _REASON)
    axes = [None if d in dims else axis for d, axis in enumerate(x.axes)]
    places = picked[0][1].shape
    shape = (*x.shape[: dims[0]], *places, *x.shape[dims[-1] + 1 :])
    broadcast(flow, values, shape, [*axes[: dims[0]], *(None for _ in places), *axes[dims[-1] + 1 :]])
    return Value(x.shape, tuple(axes))


@rule("nonzero", "nonzero_numpy", "argwhere", "masked_select", "bincount")
@rule("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive")
def sized_by_values(flow: Flow, *tensors: Any, **_: Any) -> Any:
    """The values decide how much comes out."""
    axes = [axis for x in tensors if isinstance(x, Value) for axis in x.axes]
    flow.freeze(axes, "makes tensors whose sizes follow from the values of channels")
    return [Value.fixed(shape) for shape in flow.shape] if isinstance(flow.shape, list) else Value.fixed(flow.shape)


@rule("is_nonzero", "equal", "allclose", "item", "_local_scalar_dense", "tolist", "numpy")
def number(flow: Flow, *tensors: Any, **_: Any) -> list[Value]:
    """Makes a number and no tensor: the code may do anything with it."""
    flow.freeze([axis for x in tensors if isinstance(x, Value) for axis in x.axes], "makes a number of channels")
    return []


def _without(x: Value, dim: int, shape: Sequence[int]) -> Value:
    """The same axes, but nothing that can be removed from axis `dim`."""
    return Value(tuple(shape), tuple(None if d == dim % len(x.shape) else axis for d, axis in enumerate(x.axes)))
