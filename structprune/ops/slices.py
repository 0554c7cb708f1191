"""Indices with slices whose bounds follow a size, `x[:, :height]` and `mask[:-4]`, and with lists of places."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .provenance import Number, Size, expression, larger, leaves, plain

_ATEN = torch.ops.aten
_BOUNDS = (int, Number, type(None))
_PARTS = (*_BOUNDS, slice, EllipsisType)

Call: TypeAlias = tuple[Any, tuple[Any, ...]]


def calls_of(parts: Sequence[Any], sizes: Sequence[Number]) -> tuple[list[Call], tuple[Any, ...]] | None:
    """The calls that torch makes of the parts of an index, one after another, and the index that is left to it then.

    Args:
        parts: Of the index.
        sizes: Of the tensor.

    Returns:
        Each call's op with its arguments after the tensor, and an index of what they give; None where no slice follows
        a size, or where a part is none of numbers, slices between numbers, `...`, None and tensors of places.
    """
    if not all(type(part) in _PARTS or _is_places(part) for part in parts):
        return None
    ends = [bound for part in parts if isinstance(part, slice) for bound in (part.start, part.stop, part.step)]
    if not all(type(bound) in _BOUNDS for bound in ends):  # of a tensor, say, which to compare is to read
        return None
    calls: list[Call] = []
    left: list[Any] = []  # as long as the axes that are done, of what the calls give
    axis = 0  # of the tensor
    for place, part in enumerate(parts):
        if part is Ellipsis:
            passed = len(sizes) - axis - sum(later is not None for later in parts[place + 1 :])
            left += [slice(None)] * passed
            axis += passed
            continue
        if isinstance(part, slice):
            if bounds := _bounds(part, sizes[axis]):
                calls.append((_ATEN.slice.Tensor, (len(left), *bounds)))
        elif part is None:
            calls.append((_ATEN.unsqueeze.default, (len(left),)))
        elif isinstance(part, int):
            calls.append((_ATEN.select.int, (len(left), part)))
        axis += part is not None
        if not isinstance(part, int):
            left.append(part if isinstance(part, Tensor) else slice(None))
    follows = any(op is _ATEN.slice.Tensor and any(map(_follows, bounds)) for op, bounds in calls)
    return (calls, tuple(left)) if follows else None


def _bounds(part: slice, size: Number) -> tuple[Any, Any, Any] | None:
    """Start, stop and step; None where torch makes no call of it, as it takes all there is."""
    start, stop = (_from_start(bound, size) for bound in (part.start, part.stop))
    bounds = (
        0 if start is None else start,
        sys.maxsize if stop is None else stop,
        1 if part.step is None else part.step,
    )
    whole = bounds[0] == 0 and bounds[1] >= plain(size) and bounds[2] == 1
    return None if whole and not any(map(_follows, bounds)) else bounds


def _follows(number: Any) -> bool:
    """Whether a number follows a size."""
    return any(isinstance(leaf, Size) for leaf in leaves(expression(number)))


def _is_places(part: Any) -> bool:
    """Whether torch picks places by it, one axis' for one tensor: masks are for several, and one number is a number."""
    return isinstance(part, Tensor) and part.dim() > 0 and part.dtype not in (torch.bool, torch.uint8)


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


def with_tensors(index: Any) -> Any:
    """An index whose lists of places are tensors: torch makes them unseen where tensors have shapes alone, and by calls
    where they have values."""
    if isinstance(index, tuple):
        return tuple(torch.as_tensor(part) if _is_listing(part) else part for part in index)
    flat = _is_listing(index) and not any(isinstance(item, (list, tuple)) for item in index)
    return torch.as_tensor(index) if flat else index  # a list of lists may stand for a tuple


def _is_listing(part: Any) -> bool:
    """Whether a part of an index is an array, or numbers in lists."""
    if isinstance(part, (list, tuple, range)):
        return len(part) > 0 and all(isinstance(item, int) or _is_listing(item) for item in part)
    return isinstance(part, np.ndarray)
