"""Whole numbers that remember which module attribute they came from.

A module's forward reads widths from its own attributes (`x.reshape(b, n, 3, self.num_heads, self.head_dim)`), and a
slim module works only if those follow. So tracing runs on a copy whose whole-number attributes are `Number`s: they
behave as `int`, and arithmetic among them keeps an expression. Where one arrives as a size, it names the attribute.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from ..modules import walk


class Source(NamedTuple):
    """An attribute of a module; `place` counts within it if it is a tuple or list of numbers, else None."""

    module: str
    name: str
    place: int | None = None


class Number(int):
    """An int with `expression`: a `Source`, or (function, left, right) of expressions and plain numbers."""

    expression: Any

    @classmethod
    def of(cls, value: int, expression: Any) -> Number:
        number = cls(value)
        number.expression = expression
        return number

    @property
    def source(self) -> Source | None:
        """The attribute that this number is, if it is one unchanged."""
        return self.expression if isinstance(self.expression, Source) else None

    def __copy__(self) -> Number:
        return self

    def __deepcopy__(self, memo: dict) -> Number:
        return self


def _binary(function: Callable[[Any, Any], Any], swapped: bool) -> Callable[[Number, Any], Any]:
    def method(self: Number, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        left, right = (other, self) if swapped else (self, other)
        value = function(int(left), int(right))
        return Number.of(value, (function, expression(left), expression(right))) if type(value) is int else value

    return method


for _name in ("add", "sub", "mul", "floordiv", "mod", "pow"):
    setattr(Number, f"__{_name}__", _binary(getattr(operator, _name), swapped=False))
    setattr(Number, f"__r{_name}__", _binary(getattr(operator, _name), swapped=True))


def expression(value: Any) -> Any:
    return value.expression if isinstance(value, Number) else value


def evaluate(expression: Any, values: Mapping[Source, int]) -> int:
    """The value of an expression with other values for some attributes. Raises KeyError for one not given."""
    if isinstance(expression, Source):
        return values[expression]
    if isinstance(expression, tuple):
        function, left, right = expression
        return function(evaluate(left, values), evaluate(right, values))
    return expression


def sources(expression: Any) -> list[Source]:
    """The attributes in an expression."""
    if isinstance(expression, Source):
        return [expression]
    if isinstance(expression, tuple):
        return [*sources(expression[1]), *sources(expression[2])]
    return []


_INTERNAL = frozenset(vars(nn.Module()))


def remember(model: nn.Module) -> None:
    """Makes every whole-number attribute of `model`'s modules a `Number`, also in tuples and lists."""
    for path, module in walk(model):
        for name, value in vars(module).items():
            if name in _INTERNAL:
                continue
            if type(value) is int:
                module.__dict__[name] = Number.of(value, Source(path, name))
            elif type(value) in (tuple, list) and value and all(type(item) is int for item in value):
                items = [Number.of(item, Source(path, name, i)) for i, item in enumerate(value)]
                module.__dict__[name] = items if type(value) is list else tuple(items)
