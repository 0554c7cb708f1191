"""Ops that move positions: reshapes, permutations, copies, concatenation, shuffles and windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ops.provenance import Number, expression, parts
from ...ops.record import op, rule
from .. import constants, rewrites
from ..axes import Axis, concatenate, merge
from ..flow import Flow, Unsupported
from ..values import Value


@op("view", sizes=("size",), masked=constants.moved, rewrite=rewrites.sized("view"))
@op("reshape", sizes=("shape",), masked=constants.moved, rewrite=rewrites.sized("reshape"))
@op("_unsafe_view", sizes=("size",), masked=constants.moved, rewrite=rewrites.sized("reshape"), trusts=True)
@op("_reshape_alias", masked=constants.moved, rewrite=rewrites.sized("reshape"), trusts=True)
@op("view_as", masked=constants.moved, rewrite=rewrites.like("view"))
@op("reshape_as", masked=constants.moved, rewrite=rewrites.like("reshape"))
@op("unflatten", sizes=("sizes",), masked=constants.moved, rewrite=rewrites.unflatten)
@op("flatten", "squeeze", masked=constants.moved, effect="squeezed")
@op("unsqueeze", "ravel", masked=constants.moved)
def reshape(flow: Flow, x: Value, *arguments: Any, **_: Any) -> Value:
    """Follows any row-major reshape: axes that merge carry all their units, an axis that splits is a product."""
    shape = tuple(flow.shape)
    axes: list[Axis] = []
    for before, after in _blocks(x.shape, shape):
        axes += _reshaped(flow, [x.axes[i] for i in before], [x.shape[i] for i in before], [shape[i] for i in after])
    if flow.op == "squeeze":
        dims = arguments[0] if arguments else range(len(x.shape))
        for d in dims if isinstance(dims, (list, tuple, range)) else [dims]:
            if x.axes and (axis := x.axes[d]) is not None and len(axis) > 1:
                flow.floors.append((axis, 2))  # one channel would be dropped with its axis
    if flow.op in ("view", "reshape", "unflatten") and arguments and not isinstance(arguments[0], Value):
        sizes = arguments[-1] if isinstance(arguments[-1], (list, tuple)) else []
        first = arguments[0] % len(x.shape) if flow.op == "unflatten" else 0
        for i, size in enumerate(sizes):
            flow.follow(size, axes[first + i])
        _follow_parts(flow, sizes, axes[first:], shape[first:])
    return Value(shape, tuple(axes))


def _follow_parts(flow: Flow, sizes: Sequence[Any], axes: list[Axis], shape: Sequence[int]) -> None:
    """`x.reshape(…, heads, width // heads)`: together the two are as long as the axis whose size is `width`."""
    for j, size in enumerate(sizes):
        divided = parts(expression(size))
        if divided is None:
            continue
        width, count = divided
        for i in (j - 1, j + 1):
            if 0 <= i < len(sizes) and expression(sizes[i]) == count and shape[i] * shape[j] == width.value:
                both = sorted((i, j))
                whole = merge([axes[d] for d in both], [shape[d] for d in both])
                flow.follow(Number.of(width.value, width), whole)


def _reshaped(flow: Flow, entering: list[Axis], before: list[int], after: list[int]) -> list[Axis]:
    if all(axis is None for axis in entering):
        return [None] * len(after)
    wide = [i for i, size in enumerate(after) if size > 1]
    if not after or not wide:
        flow.freeze(entering, "drops an axis that carries a channel")
        return [None] * len(after)
    live = [i for i, size in enumerate(before) if size > 1]
    flow.freeze(
        [axis for axis, size in zip(entering, before, strict=True) if size == 1], "drops an axis of one channel"
    )
    if len(live) == 1 and len(wide) == 1:
        axis = entering[live[0]]
        return [axis if [i] == wide else None for i in range(len(after))]
    merged = merge(entering, before)
    if len(wide) == 1:
        return [merged if [i] == wide else None for i in range(len(after))]
    parts = iter(flow.split(merged, [after[i] for i in wide]))
    return [next(parts) if i in wide else None for i in range(len(after))]


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Splits two shapes of equal size into the finest runs of axes whose products agree."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [], []
        if i < len(before):
            left.append(i)
            i += 1
        if j < len(after):
            right.append(j)
            j += 1
        while (a := math.prod(before[k] for k in left)) != (b := math.prod(after[k] for k in right)):
            if (a < b or j >= len(after)) and i < len(before):
                left.append(i)
                i += 1
            elif j < len(after):
                right.append(j)
                j += 1
            else:
                raise Unsupported(f"reshapes {tuple(before)} to {tuple(after)}, which do not match")
        if blocks and not (left and right):  # trailing axes of length 1
            blocks[-1][0].extend(left)
            blocks[-1][1].extend(right)
            continue
        blocks.append((left, right))
    return blocks


@op("permute", masked=constants.moved)
def permute(flow: Flow, x: Value, dims: Sequence[int]) -> Value:
    return Value(tuple(flow.shape), tuple(x.axes[d] for d in dims))


@op("movedim", "moveaxis", masked=constants.moved)
def movedim(flow: Flow, x: Value, source: Any, destination: Any) -> Value:
    rank = len(x.shape)
    source = [d % rank for d in (source if isinstance(source, (list, tuple)) else [source])]
    destination = [d % rank for d in (destination if isinstance(destination, (list, tuple)) else [destination])]
    rest = iter(d for d in range(rank) if d not in source)
    order = [source[destination.index(d)] if d in destination else next(rest) for d in range(rank)]
    return permute(flow, x, order)


@op("view_as_complex", "view_as_real", masked=constants.moved)
def complex_view(flow: Flow, x: Value) -> Value:
    """The last axis holds the real and the imaginary part."""
    if flow.op == "view_as_real":
        return Value(tuple(flow.shape), (*x.axes, None))
    flow.freeze(x.axes[-1:], "takes channels for real and imaginary parts")
    return Value(tuple(flow.shape), x.axes[:-1])


@op("transpose", "swapaxes", "swapdims", masked=constants.moved)
def transpose(flow: Flow, x: Value, a: int, b: int) -> Value:
    axes = list(x.axes)
    axes[a], axes[b] = axes[b], axes[a]
    return Value(tuple(flow.shape), tuple(axes))


@op("t", "numpy_T", "mT", "adjoint", "matrix_H", masked=constants.moved)
def transpose_matrix(flow: Flow, x: Value) -> Value:
    if len(x.shape) < 2:
        return x
    return transpose(flow, x, -1, -2) if flow.op != "numpy_T" else permute(flow, x, range(len(x.shape))[::-1])


@op("expand", sizes=("size",), spreads=True, masked=constants.expanded, rewrite=rewrites.sized("expand"))
@op("expand_as", spreads=True, masked=constants.expanded, rewrite=rewrites.like("expand"))
@op("broadcast_to", spreads=True, masked=constants.expanded)
def expand(flow: Flow, x: Value, *arguments: Any, **__: Any) -> Value:
    """Copies of one position: any of them can go, if what they meet goes."""
    new = len(flow.shape) - len(x.shape)
    numbers = arguments[0] if arguments and isinstance(arguments[0], (list, tuple)) else flow.shape
    axes: list[Axis] = []
    for d, size in enumerate(flow.shape):
        if d >= new and x.shape[d - new] == size:
            axes.append(x.axes[d - new])
            flow.follow(numbers[d], axes[-1])
            continue
        if d >= new:
            flow.freeze([x.axes[d - new]], "spreads one channel over many")
        axes.append(flow.spread(numbers[d], size))
    return Value(tuple(flow.shape), tuple(axes))


@op("repeat", sizes=("repeats",), spreads=True, masked=constants.moved, rewrite=rewrites.repeat)
@op("tile", spreads=True, masked=constants.moved, rewrite=rewrites.repeat)
def repeat(flow: Flow, x: Value, times: Sequence[int]) -> Value:
    """Copies of a whole axis; those of one position are like those that `expand` makes."""
    times = [1] * (len(flow.shape) - len(times)) + list(times)
    new = len(flow.shape) - len(x.shape)
    axes: list[Axis] = []
    for d, n in enumerate(times):
        axis, size = (x.axes[d - new], x.shape[d - new]) if d >= new else (None, 1)
        if n == 1:
            axes.append(axis)
        elif size > 1:
            axes.append(None if axis is None else np.tile(axis, (n, 1)))
        else:
            flow.freeze([axis], "spreads one channel over many")
            axes.append(flow.spread(n, n))
    return Value(tuple(flow.shape), tuple(axes))


@op("repeat_interleave", masked=constants.moved)
def repeat_interleave(flow: Flow, x: Value, times: Any, dim: Any = None, **_: Any) -> Value:
    if not isinstance(times, int) or (dim is None and len(x.shape) > 1):
        raise Unsupported("repeats channels unequally")
    dim = (dim or 0) % len(x.shape)
    axes = [np.repeat(a, times, axis=0) if d == dim and a is not None else a for d, a in enumerate(x.axes)]
    return Value(tuple(flow.shape), tuple(axes))


@op("cat", masked=constants.moved, effect="joined")
@op("concat", "concatenate", masked=constants.moved)
def cat(flow: Flow, tensors: Sequence[Value], dim: int = 0) -> Value:
    tensors = [x for x in tensors if x.shape != (0,)]
    rank = len(flow.shape)
    axes: list[Axis] = []
    for d in range(rank):
        if d == dim % rank:
            axes.append(concatenate([x.axes[d] for x in tensors], [x.shape[d] for x in tensors]))
            continue
        axis = tensors[0].axes[d]
        for other in tensors[1:]:
            axis = flow.tie(axis, other.axes[d])
        axes.append(axis)
    return Value(tuple(flow.shape), tuple(axes))


@op("hstack", "vstack", "dstack", "column_stack", masked=constants.moved)
def cat_along(flow: Flow, tensors: Sequence[Value]) -> Value:
    dim = {"vstack": 0, "dstack": 2}.get(flow.op, 1)
    if any(len(x.shape) <= max(dim, 1) for x in tensors):
        raise Unsupported("stacks tensors of fewer axes")
    return cat(flow, tensors, dim)


@op("stack", masked=constants.moved)
def stack(flow: Flow, tensors: Sequence[Value], dim: int = 0) -> Value:
    axes = list(tensors[0].axes)
    for other in tensors[1:]:
        axes = [flow.tie(a, b) for a, b in zip(axes, other.axes, strict=True)]
    axes.insert(dim % len(flow.shape), None)
    return Value(tuple(flow.shape), tuple(axes))


@rule("meshgrid", "broadcast_tensors")
def side_by_side(flow: Flow, tensors: Sequence[Value], **_: Any) -> list[Value]:
    flow.freeze([axis for x in tensors for axis in x.axes], "spreads channels over a grid")
    return [Value.fixed(shape) for shape in flow.shape]


@op("pixel_shuffle", "pixel_unshuffle", masked=constants.moved)
def pixel_shuffle(flow: Flow, x: Value, factor: int) -> Value:
    """(C·r·r, H, W) to (C, H·r, W·r) and back: a channel goes with all its r·r places."""
    channel = len(x.shape) - 3
    axis = x.axes[channel]
    flow.freeze(x.axes[channel + 1 :], "mixes an axis that carries channels with places")
    if axis is not None and flow.op == "pixel_shuffle":
        axis, *places = flow.split(axis, (len(axis) // factor**2, factor, factor))
        flow.freeze(places, None)
    elif axis is not None:
        axis = np.repeat(axis, factor**2, axis=0)
    return Value(tuple(flow.shape), (*x.axes[:channel], axis, None, None))


@op("channel_shuffle", masked=constants.moved)
def channel_shuffle(flow: Flow, x: Value, groups: int) -> Value:
    """The number of groups is a number in the code, so groups stay and each loses the same places."""
    axis = x.axes[1]
    if axis is None:
        return x
    blocks, places = flow.split(axis, (groups, len(axis) // groups))
    flow.freeze([blocks], None)
    shuffled = merge([places, blocks], [len(axis) // groups, groups])
    return Value(tuple(flow.shape), (x.axes[0], shuffled, *x.axes[2:]))


@op("im2col", masked=constants.zeros_stay)
def im2col(flow: Flow, x: Value, kernel: Sequence[int], *_: Any, **__: Any) -> Value:
    """(N, C, H, W) to (N, C·kh·kw, places): a channel goes with all its kh·kw entries."""
    flow.freeze(x.axes[2:], "mixes an axis that carries channels with places")
    axis = x.axes[1]
    wide = None if axis is None else np.repeat(axis, math.prod(kernel), axis=0)
    return Value(tuple(flow.shape), (x.axes[0], wide, None))


@op("col2im", masked=constants.zeros_stay)
def col2im(flow: Flow, x: Value, size: Sequence[int], kernel: Sequence[int], *_: Any, **__: Any) -> Value:
    axis, places = x.axes[1], math.prod(kernel)
    if axis is not None:
        axis, inner = flow.split(axis, (len(axis) // places, places))
        flow.freeze([inner], None)
    return Value(tuple(flow.shape), (x.axes[0], axis, None, None))


@op("unfold", masked=constants.moved)
def unfold(flow: Flow, x: Value, dim: int, *_: Any) -> Value:
    if x.axes[dim] is not None:
        raise Unsupported("cuts windows of channels")
    return Value(tuple(flow.shape), (*x.axes, None))
