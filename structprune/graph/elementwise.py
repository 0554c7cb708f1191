"""What elementwise ops make of the numbers that stand where channels were removed: they are run on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..ops.provenance import Number
from .constants import Call, Constants, picked, plain
from .values import Value


def applied(call: Call, otherwise: Callable[[Call, list[Any], int], float | None] | None = None) -> Constants:
    """What the op makes of the numbers at the removed positions of each axis.

    Where one of them is not known, `otherwise` may tell all the same, by the numbers and the axis from the end.
    """
    return tuple(
        None if axis is None else _at(call, d - len(call.result.shape), otherwise)
        for d, axis in enumerate(call.result.axes)
    )


def _at(call: Call, dim: int, otherwise: Callable[[Call, list[Any], int], float | None] | None) -> float | None:
    numbers = [_number(x, dim) if isinstance(x, Value) else x for x in call.args]
    tensors = [n for x, n in zip(call.args, numbers, strict=True) if isinstance(x, Value)]
    if None not in tensors and not any(isinstance(x, Value) for x in call.kwargs.values()):
        return _run(call.node.target, tuple(call.args), tuple(numbers), dict(call.kwargs))
    return otherwise(call, numbers, dim) if otherwise is not None else None


def multiplied(call: Call) -> Constants:
    """Zero where a factor is, if the others are finite."""
    return applied(call, _product_of)


def _product_of(call: Call, numbers: list[Any], dim: int) -> float | None:
    known = [n for x, n in zip(call.args, numbers, strict=True) if isinstance(x, Value) and n is not None]
    return 0.0 if 0.0 in known and all(map(math.isfinite, known)) else None


def divided(call: Call) -> Constants:
    """Zero where a zero is divided by what carries no channels."""

    def quotient(call: Call, numbers: list[Any], dim: int) -> float | None:
        return 0.0 if numbers[0] == 0.0 and not _carries(call.args[1], dim) else None

    return applied(call, quotient)


def chosen(call: Call) -> Constants:
    """Of `where`: the same number on both sides."""

    def same(call: Call, numbers: list[Any], dim: int) -> float | None:
        return plain(numbers[1]) if len(numbers) == 3 and numbers[1] == numbers[2] else None

    return applied(call, same)


def filled_where(call: Call) -> Constants:
    """Of `masked_fill`: what stands there is what it is filled with."""

    def same(call: Call, numbers: list[Any], dim: int) -> float | None:
        return plain(numbers[0]) if numbers[0] is not None and numbers[0] == plain(numbers[2]) else None

    return applied(call, same)


def copied(call: Call) -> Constants:
    """Of `copy`: what is copied there."""
    return applied(call, lambda call, numbers, dim: plain(numbers[1]))


def zero_alone(call: Call) -> Constants:
    """What makes random numbers of one tensor: zeros of zeros."""
    tensors = [x for x in call.args if isinstance(x, Value)]

    def drawn(dim: int) -> float | None:
        live = call.result.axes[dim] is not None
        return 0.0 if live and len(tensors) == 1 and _number(tensors[0], dim) == 0.0 else None

    return tuple(drawn(dim) for dim in range(-len(call.result.shape), 0))


def larger(call: Call) -> Constants:
    """Of `max` and `min`: of two tensors, or of one along an axis."""
    return applied(call) if isinstance(call.args[-1], Value) else picked(call)


def _number(x: Value, dim: int) -> float | None:
    return x.at(dim) if _carries(x, dim) else None


def _carries(x: Any, dim: int) -> bool:
    return isinstance(x, Value) and len(x.shape) >= -dim and x.axes[dim] is not None


def _run(target: Any, args: tuple[Any, ...], numbers: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """The op on scalars, each a tensor or number as in the call; None where it does not take them."""
    places = tuple(isinstance(x, Value) for x in args)
    options = {k: v for k, v in kwargs.items() if k not in ("device", "layout", "memory_format", "pin_memory")}
    key = (target, places, repr(numbers), repr(options))
    if key not in _RESULTS:
        scalars = [
            torch.tensor(n, dtype=torch.float64) if tensor else int(n) if isinstance(n, Number) else n
            for n, tensor in zip(numbers, places, strict=True)
        ]
        try:
            with torch.no_grad():
                result = target(*scalars, **options)
            _RESULTS[key] = float(result) if isinstance(result, Tensor) and result.numel() == 1 else None
        except (RuntimeError, TypeError, NotImplementedError, ValueError):  # wants booleans, or a device
            _RESULTS[key] = None
    return _RESULTS[key]


_RESULTS: dict[Any, float | None] = {}
