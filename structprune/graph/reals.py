"""Numbers that the model's code reads out of tensors (`x.item()`, `lengths.tolist()`), and remembers that it did."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from .noting import compared
from .numbers import Number, Read, expression


class Real(float):
    """A float with `expression`, as a `Number` is an int: arithmetic keeps it and comparisons are noted."""

    expression: Any

    @classmethod
    def of(cls, value: float, expression: Any) -> Real:
        number = cls(value)
        number.expression = expression
        return number

    def __bool__(self) -> bool:
        return self != 0

    __hash__ = float.__hash__


def _binary(function: Callable[[Any, Any], Any], swapped: bool) -> Callable[[Real, Any], Any]:
    def method(self: Real, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        left, right = (other, self) if swapped else (self, other)
        value = function(float(left), float(right))
        return Real.of(value, (function, expression(left), expression(right)))

    return method


def _comparison(function: Callable[[Any, Any], bool]) -> Callable[[Real, Any], Any]:
    def method(self: Real, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        return compared(function, self, other, function(float(self), float(other)))

    return method


for _name in ("add", "sub", "mul", "truediv"):
    setattr(Real, f"__{_name}__", _binary(getattr(operator, _name), swapped=False))
    setattr(Real, f"__r{_name}__", _binary(getattr(operator, _name), swapped=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Real, f"__{_name}__", _comparison(getattr(operator, _name)))


def remembering(value: Any, leaf: Read) -> Any:
    """The same number, or numbers in nested lists, with where they come from."""
    if isinstance(value, list):
        return [remembering(item, leaf) for item in value]
    if type(value) is int:
        return Number.of(value, leaf._replace(value=value))
    return Real.of(value, leaf._replace(value=value)) if type(value) is float else value
