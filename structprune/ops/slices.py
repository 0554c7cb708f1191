"""Slices whose bounds follow a size: `x[:, :height]`, `mask[:-4]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .provenance import Number, Size, expression, larger, leaves, plain


def bounds_of(parts: Sequence[Any], sizes: Sequence[Number]) -> Iterator[tuple[int, int, Any, Any, Any]]:
    """(place, axis, start, stop, step) of the parts of an index that are such slices, of a tensor of `sizes`."""
    for place, dim in enumerate(_axes(len(sizes), parts)):
        part = parts[place]
        if dim is None or not isinstance(part, slice):
            continue
        start, stop = (_from_start(bound, sizes[dim]) for bound in (part.start, part.stop))
        if any(isinstance(leaf, Size) for bound in (start, stop) for leaf in leaves(expression(bound))):
            step = 1 if part.step is None else part.step
            yield place, dim, 0 if start is None else start, sys.maxsize if stop is None else stop, step


def takes_all(index: Any) -> bool:
    """Whether an index takes all there is, along all axes."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is Ellipsis or (isinstance(part, slice) and part.start is part.stop is part.step is None) for part in parts
    )


def _from_start(bound: Any, size: Number) -> Any:
    """A slice's bound that counts from the end, counted from the start."""
    if not isinstance(bound, int) or plain(bound) >= 0:
        return bound
    place: Any = size + bound
    return Number.of(max(plain(place), 0), (larger, place.expression, 0))


def _axes(rank: int, index: Sequence[Any]) -> list[int | None]:
    """The axis that each part of an index is for, if it has numbers and slices only; else no axes."""
    indices = [part for part in index if part is not None and part is not Ellipsis]
    if not all(type(part) in (int, Number, slice) for part in indices):
        return [None] * len(index)
    axes: list[int | None] = []
    dim = 0
    for place, part in enumerate(index):
        if part is Ellipsis:
            dim = rank - sum(later is not None for later in index[place + 1 :])
        axes.append(None if part is None or part is Ellipsis else dim)
        dim += part is not None and part is not Ellipsis
    return axes
