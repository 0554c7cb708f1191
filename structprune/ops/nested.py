"""Numbers and tensors in nested arguments, and numbers where Python makes plain ones of them."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from .provenance import plain


def leaves_of(value: Any) -> Iterator[Any]:
    """Gives what lies in nested lists, tuples, dicts and slices; pytree's own way takes several times as long.

    Args:
        value: Whatever may be nested.

    Returns:
        Its leaves, in order; `value` itself if it is not nested.
    """
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves_of(item)
    elif isinstance(value, dict):
        yield from leaves_of(tuple(value.values()))
    elif isinstance(value, slice):
        yield from (value.start, value.stop, value.step)
    else:
        yield value


def map_leaves(value: Any, function: Any) -> Any:
    """Applies a function to what lies in nested lists, tuples and dicts.

    Args:
        value: Whatever may be nested.
        function: Gets a leaf, and gives what takes its place.

    Returns:
        The same nesting, with new leaves.
    """
    if isinstance(value, (list, tuple)):
        items = [map_leaves(item, function) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, dict):
        return {key: map_leaves(item, function) for key, item in value.items()}
    return function(value)


def noted(value: Any, tensor: Any, numbers: list[float]) -> Any:
    """`value` with `tensor` applied to tensors, and each number replaced by the first equal one left in `numbers`.

    An op gets the numbers of the torch function that calls it, so these tell which of them are `Number`s.
    """
    if isinstance(value, Tensor):
        return tensor(value)
    if isinstance(value, (list, tuple)):
        return type(value)([noted(item, tensor, numbers) for item in value]) if value else value
    if isinstance(value, dict):
        return {key: noted(item, tensor, numbers) for key, item in value.items()}
    if numbers and type(value) in (int, float):
        for position, number in enumerate(numbers):
            if plain(number) == value and isinstance(number, float) == isinstance(value, float):
                return numbers.pop(position)
    return value


@contextmanager
def whole_lengths() -> Iterator[None]:
    """`len(x)` of a tensor is `x.shape[0]`: the function itself makes a plain number of whatever it gets."""
    plain_len = builtins.len

    def length(value: Any) -> int:
        return value.shape[0] if isinstance(value, Tensor) and value.dim() else plain_len(value)

    builtins.len = length
    try:
        yield
    finally:
        builtins.len = plain_len
