"""Ops that move positions: reshapes, permutations, concatenation, and parts of an axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..flow import Flow, Unsupported, Value
from ..units import Axis, concatenate, merge
from .table import rule


@rule("flatten", "view", "reshape", "_unsafe_view", "unflatten", "squeeze", "unsqueeze")
def reshape(flow: Flow, x: Value, *_: Any, **__: Any) -> Value:
    """Follows any row-major reshape that keeps or merges the axes which carry channels."""
    shape = tuple(flow.shape)
    axes: list[Axis] = []
    for before, after in _blocks(x.shape, shape):
        entering = [x.axes[i] for i in before]
        if all(axis is None for axis in entering):
            axes += [None] * len(after)
            continue
        wide = [i for i in after if shape[i] > 1]
        if not after:
            raise Unsupported("drops an axis that carries a channel")
        if len(wide) > 1:
            raise Unsupported(f"splits an axis that carries channels: {x.shape} to {shape}")
        merged = merge(entering, [x.shape[i] for i in before])
        axes += [merged if [i] == (wide or after[:1]) else None for i in after]
    return Value(shape, tuple(axes))


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


@rule("permute")
def permute(flow: Flow, x: Value, dims: Sequence[int]) -> Value:
    return Value(tuple(flow.shape), tuple(x.axes[d] for d in dims))


@rule("transpose", "swapaxes")
def transpose(flow: Flow, x: Value, a: int, b: int) -> Value:
    axes = list(x.axes)
    axes[a], axes[b] = axes[b], axes[a]
    return Value(tuple(flow.shape), tuple(axes))


@rule("expand")
def expand(flow: Flow, x: Value, *_: Any, **__: Any) -> Value:
    new = len(flow.shape) - len(x.shape)
    kept = [axis if n == m else None for axis, n, m in zip(x.axes, x.shape, flow.shape[new:], strict=True)]
    if any(axis is not None and k is None for axis, k in zip(x.axes, kept, strict=True)):
        raise Unsupported("spreads one channel over many")
    return Value(tuple(flow.shape), (*(None,) * new, *kept))


@rule("cat", "concat", "concatenate")
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


# Parts of equal size keep equal size, whatever Python derived their bounds from.


@rule("chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split")
def split(flow: Flow, x: Value, *arguments: Any, **options: Any) -> list[Value]:
    dim = options.get("dim", arguments[1] if len(arguments) > 1 else 0) % len(x.shape)
    sizes = [shape[dim] for shape in flow.shape]
    axis = x.axes[dim]
    starts = np.cumsum([0, *sizes])
    if axis is not None:
        _equal_parts(flow, axis, sizes[0], all(size == sizes[0] for size in sizes))
    parts = [None if axis is None else axis[a:b] for a, b in itertools.pairwise(starts)]
    return [_with_axis(x, dim, part, shape) for part, shape in zip(parts, flow.shape, strict=True)]


@rule("slice")
def slice_(flow: Flow, x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    dim %= len(x.shape)
    axis, size = x.axes[dim], x.shape[dim]
    if axis is None:
        return _with_axis(x, dim, None, flow.shape)
    picked = range(size)[slice(start, end, step)]
    if len(picked) == size and step == 1:
        return _with_axis(x, dim, axis, flow.shape)
    width = len(picked)
    if width == 1:
        raise Unsupported("picks one channel by its number")
    aligned = step == 1 and width > 0 and size % width == 0 and picked.start % width == 0
    _equal_parts(flow, axis, width, aligned)
    return _with_axis(x, dim, axis[picked.start : picked.stop], flow.shape)


@rule("select")
def select(flow: Flow, x: Value, dim: int, index: Any) -> Value:
    dim %= len(x.shape)
    if x.axes[dim] is not None:
        raise Unsupported("picks one channel by its number")
    return Value(tuple(flow.shape), tuple(a for d, a in enumerate(x.axes) if d != dim))


def _equal_parts(flow: Flow, axis: np.ndarray, width: int, aligned: bool) -> None:
    """Ties position i of every part, so that the parts stay equal after pruning."""
    if not aligned or len(axis) % width:
        raise Unsupported("cuts the channel axis into unequal parts, whose bounds cannot follow the widths")
    if axis.shape[1] != 1:
        raise Unsupported("cuts an axis made of several factors")
    parts = axis.reshape(-1, width)
    if (parts < 0).any():
        raise Unsupported("cuts an axis of which some channels must stay")
    flow.units.tie(np.broadcast_to(parts[:1], parts.shape), parts)


def _with_axis(x: Value, dim: int, axis: Axis, shape: Sequence[int]) -> Value:
    return Value(tuple(shape), tuple(axis if d == dim else a for d, a in enumerate(x.axes)))
