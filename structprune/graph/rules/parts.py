"""Ops that take parts of an axis, or single positions.

In the user's own module a part's size comes from somewhere: an attribute, which can follow; a count of equal parts or a
share of the width, which follow if the parts stay equal; or a number in the code, which can't.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ops.provenance import Number
from ...ops.record import op, rule
from .. import constants, rewrites
from ..axes import Axis
from ..flow import Flow, Unsupported
from ..values import Value


@op("split", sizes=("split_size", "split_sizes"), masked=constants.moved, rewrite=rewrites.split)
@op("split_with_sizes", sizes=("split_sizes",), masked=constants.moved, rewrite=rewrites.split)
@op(
    *("chunk", "unsafe_chunk", "unsafe_split", "tensor_split", "unsafe_split_with_sizes"),
    masked=constants.moved,
    rewrite=rewrites.split,
)
def split(flow: Flow, x: Value, *arguments: Any, **options: Any) -> list[Value]:
    dim = options.get("dim", arguments[1] if len(arguments) > 1 else 0) % len(x.shape)
    sizes = [shape[dim] for shape in flow.shape]
    axis = x.axes[dim]
    parts: list[Axis] = [None] * len(sizes)
    if axis is not None:
        starts = np.cumsum([0, *sizes])
        parts = [axis[a:b] for a, b in itertools.pairwise(starts)]
        sizes_or_count = arguments[0] if arguments else None
        if flow.module_form and isinstance(sizes_or_count, (list, tuple)):
            _follow_sizes(flow, parts, sizes_or_count)
        elif flow.module_form or flow.op in ("hsplit", "vsplit", "dsplit"):  # else the graph form writes the sizes
            _follow_count(flow, parts, sizes_or_count)
    return [_with_axis(x, dim, part, shape) for part, shape in zip(parts, flow.shape, strict=True)]


@op("hsplit", "vsplit", "dsplit", masked=constants.moved)
def split_along(flow: Flow, x: Value, sections: Any) -> list[Value]:
    if not isinstance(sections, int):
        raise Unsupported("cuts at places that are numbers in the model's code")
    return split(flow, x, sections, {"vsplit": 0, "dsplit": 2}.get(flow.op, 0 if len(x.shape) == 1 else 1))


def _follow_sizes(flow: Flow, parts: list[Axis], sizes: Sequence[Any]) -> None:
    rest = []
    for part, size in zip(parts, sizes, strict=True):
        if isinstance(size, Number):
            flow.follow(size, part)
        else:
            rest.append(part)
    least = min(sizes)
    if flow.native and rest and all(part is not None and len(part) % least == 0 for part in parts):  # k and v beside q
        rest = [piece for part in parts if part is not None for piece in np.split(part, len(part) // least)]
    if len(rest) > 1 and len({len(part) for part in rest if part is not None}) == 1:
        flow.balance(rest, "cuts the channels into equal parts")
    else:
        flow.freeze(rest, "cuts out parts whose sizes are numbers in the model's code")


def _follow_count(flow: Flow, parts: list[Axis], number: Any) -> None:
    if len({len(part) for part in parts if part is not None}) > 1:
        flow.freeze(parts, "cuts the channels into parts of one size, and a smaller last one")
        return
    flow.balance(parts, "cuts the channels into equal parts")
    if flow.op in ("split", "unsafe_split"):
        flow.follow(number, parts[0])


@op("slice", sizes=("start", "end"), masked=constants.moved, rewrite=rewrites.slice_)
@op("narrow", sizes=("start", "length"), masked=constants.moved, rewrite=rewrites.slice_)
def slice_(flow: Flow, x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    dim %= len(x.shape)
    axis, size = x.axes[dim], x.shape[dim]
    if flow.op == "narrow" and not isinstance(start, Value):
        start = start if start >= 0 else start + size
        end = start + end
    if axis is None:
        return _with_axis(x, dim, None, flow.shape)
    if isinstance(start, Value):
        raise Unsupported("cuts channels at a place that is computed")
    picked = range(size)[slice(start, end, step)]
    if len(picked) == size and step == 1:
        return _with_axis(x, dim, axis, flow.shape)
    if step != 1 or not len(picked):
        return _with_axis(x, dim, _every(flow, axis, picked, step), flow.shape)
    length = len(picked)
    if flow.module_form:
        bounds = [(n, at) for n, at in ((start, picked.start), (end, picked.stop)) if 0 < at < size]
        followed = [isinstance(n, Number) and n >= 0 for n, _ in bounds]
        if length > 1 and not any(followed) and size % length == 0 and picked.start % length == 0:
            parts = [axis[i : i + length] for i in range(0, size, length)]
            flow.balance(parts, "cuts the channels into equal parts")
        else:
            for (number, at), follows in zip(bounds, followed, strict=True):
                if follows:
                    flow.follow(number, axis[:at])
                else:
                    flow.freeze([axis[:at]], "cuts at a place that is a number in the model's code")
    return _with_axis(x, dim, axis[picked.start : picked.stop], flow.shape)


def _every(flow: Flow, axis: np.ndarray, picked: range, step: int) -> Axis:
    """One of each `step` neighbours (rotary embeddings turn them in pairs), which go together."""
    if not len(picked) or len(axis) % step or picked.start >= step or len(picked) != len(axis) // step:
        flow.freeze([axis], "picks every so many channels")
        return None
    for place in range(1, step):
        flow.tie(axis[::step], axis[place::step])
    return axis[picked.start :: step]


@op("select", masked=constants.moved)
def select(flow: Flow, x: Value, dim: int, index: Any) -> Value:
    dim %= len(x.shape)
    flow.freeze([x.axes[dim]], "picks one channel by its number")
    return Value(tuple(flow.shape), tuple(a for d, a in enumerate(x.axes) if d != dim))


@op("unbind", masked=constants.moved)
def unbind(flow: Flow, x: Value, dim: int = 0) -> list[Value]:
    dim %= len(x.shape)
    flow.freeze([x.axes[dim]], "takes the channels apart one by one")
    return [Value(tuple(s), tuple(a for d, a in enumerate(x.axes) if d != dim)) for s in flow.shape]


@op("glu", masked=constants.gated)
def glu(flow: Flow, x: Value, dim: int = -1) -> Value:
    """Halves multiplied: what goes from one goes from the other."""
    dim %= len(x.shape)
    axis = x.axes[dim]
    if axis is None:
        return Value.fixed(flow.shape) if x.is_fixed else _with_axis(x, dim, None, flow.shape)
    half = len(axis) // 2
    return _with_axis(x, dim, flow.tie(axis[:half], axis[half:]), flow.shape)


@op("tril", "triu", masked=constants.zeros_stay)
def triangle(flow: Flow, x: Value, *_: Any, **__: Any) -> Value:
    flow.freeze(x.axes[-2:], "picks channels by their numbers")
    return Value(tuple(flow.shape), (*x.axes[:-2], None, None))


@op("diagonal", masked=constants.zeros_stay)
@rule("linalg_diagonal")
def diagonal(flow: Flow, x: Value, offset: int = 0, dim1: int | None = None, dim2: int | None = None) -> Value:
    """What two axes hold at equal places goes to the end."""
    default = (-2, -1) if flow.op == "linalg_diagonal" else (0, 1)
    both = {(d if dim is None else dim) % len(x.shape) for dim, d in zip((dim1, dim2), default, strict=True)}
    flow.freeze([x.axes[d] for d in both], "picks channels by their numbers")
    return Value(tuple(flow.shape), (*(a for d, a in enumerate(x.axes) if d not in both), None))


def _with_axis(x: Value, dim: int, axis: Axis, shape: Sequence[int]) -> Value:
    return Value(tuple(shape), tuple(axis if d == dim else a for d, a in enumerate(x.axes)))
