"""Numbers that remember where they came from: a module attribute, a tensor's size, or a value read out of a tensor.

A module's forward reads widths from its own attributes (`x.reshape(b, n, 3, self.num_heads, self.head_dim)`), and a
slim module works only if those follow. So tracing runs on a copy whose whole-number attributes are `Number`s, and
`x.shape` gives `Number`s too: they behave as `int`, and arithmetic among them keeps an expression. Where one arrives as
a size, it names the attribute; comparisons of them are noted (see `conditions`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from ..module_numbers import held_numbers, write
from ..modules import walk
from .conditions import compared


class Source(NamedTuple):
    """A number that a module holds (see `module_numbers`); `place` counts within a tuple or list, else it is None."""

    module: str
    name: str
    place: int | None = None


class Size(NamedTuple):
    """The size of axis `dim` of what a graph's node made: `value` when it ran. `run` tells recordings apart, as code
    may keep a number of one (in a cache, say) for the next, where it is a plain number."""

    node: str
    dim: int
    value: int
    run: int


class Read(NamedTuple):
    """A number that the code read out of a tensor: the `place`th (from 0) that it asked for."""

    place: int
    value: float
    run: int


class Number(int):
    """An int with `expression`: a `Source`, a `Size`, or (function, left, right) of expressions and plain numbers."""

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

    def __bool__(self) -> bool:
        return self != 0

    def __neg__(self) -> int:
        return 0 - self

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __copy__(self) -> Number:
        return self

    def __deepcopy__(self, memo: dict) -> Number:
        return self


def _binary(function: Callable[[Any, Any], Any], swapped: bool) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        left, right = (other, self) if swapped else (self, other)
        value = function(plain(left), plain(right))
        return _of(value, (function, expression(left), expression(right)))

    return method


def _of(value: Any, expression: Any) -> Any:
    """A number with its expression; what is neither whole nor real (a complex power) as it is."""
    if type(value) is int:
        return Number.of(value, expression)
    return Real.of(value, expression) if type(value) is float else value


def plain(value: Any) -> Any:
    """The number without its expression."""
    if isinstance(value, Number):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def larger(one: float, other: float) -> float:
    return max(one, other)


def ceil(number: float, _: int) -> int:
    return math.ceil(number)


def floor(number: float, _: int) -> int:
    return math.floor(number)


def nearest(number: float, digits: int) -> float:
    """`round` to so many digits behind the point; to a whole number for none."""
    return round(number, digits) if digits else round(number)


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

    def __neg__(self) -> float:
        return 0 - self

    def __ceil__(self) -> int:
        return Number.of(math.ceil(float(self)), (ceil, self.expression, 0))

    def __floor__(self) -> int:
        return Number.of(math.floor(float(self)), (floor, self.expression, 0))

    def __round__(self, digits: Any = None) -> Any:  # type: ignore[override]
        return _of(round(float(self), digits), (nearest, self.expression, digits or 0))

    __hash__ = float.__hash__


def _comparison(function: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        return compared(function, self, other, function(plain(self), plain(other)))

    return method


for _kind in (Number, Real):
    for _name in ("add", "sub", "mul", "floordiv", "mod", "pow", "truediv"):
        setattr(_kind, f"__{_name}__", _binary(getattr(operator, _name), swapped=False))
        setattr(_kind, f"__r{_name}__", _binary(getattr(operator, _name), swapped=True))
    for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(_kind, f"__{_name}__", _comparison(getattr(operator, _name)))
for _name, _bits in (("and", operator.and_), ("or", operator.or_), ("xor", operator.xor), ("rshift", operator.rshift)):
    setattr(Number, f"__{_name}__", _binary(_bits, swapped=False))
    setattr(Number, f"__r{_name}__", _binary(_bits, swapped=True))


def expression(value: Any) -> Any:
    return getattr(value, "expression", value)


def evaluate(expression: Any, values: Mapping[Any, Any]) -> Any:
    """The value of an expression with other values for some attributes and sizes. Raises KeyError for one not given."""
    if isinstance(expression, Read):
        return expression.value
    if isinstance(expression, (Source, Size)):
        return values[expression]
    if isinstance(expression, tuple):
        function, left, right = expression
        return function(evaluate(left, values), evaluate(right, values))
    return expression


def leaves(expression: Any) -> list[Source | Size | Read]:
    """The attributes, sizes and numbers read from tensors in an expression."""
    if isinstance(expression, (Source, Size, Read)):
        return [expression]
    if isinstance(expression, tuple):
        return [*leaves(expression[1]), *leaves(expression[2])]
    return []


def sources(expression: Any) -> list[Source]:
    """The attributes in an expression."""
    return [leaf for leaf in leaves(expression) if isinstance(leaf, Source)]


def followed(value: Any) -> Any:
    """`settled`, but for a number that is the size of a tensor, so many times that, or such a one in equal parts."""
    held = value.expression if isinstance(value, Number) else None
    if multiple(held) is not None or parts(held) is not None:
        return value
    return settled(value)


def multiple(expression: Any) -> tuple[Size, int] | None:
    """The size and the whole number that an expression multiplies, if it does no more than that."""
    if isinstance(expression, Size):
        return expression, 1
    if isinstance(expression, tuple) and expression[0] is operator.mul:
        for size, times in (expression[1:], expression[:0:-1]):
            if isinstance(size, Size) and type(times) is int and times > 0:
                return size, times
    return None


def parts(expression: Any) -> tuple[Size, Any] | None:
    """The size and the number of parts, an attribute or a plain number, if an expression divides no more than these."""
    if isinstance(expression, tuple) and expression[0] is operator.floordiv:
        size, count = expression[1:]
        if isinstance(size, Size) and (isinstance(count, Source) or type(count) is int):
            return size, count
    return None


def settled(value: Any, kinds: tuple[type, ...] = (Size, Read)) -> Any:
    """A number with the sizes of tensors, and what was read from them, as plain numbers, so that only attributes are
    left to follow; or only with what is of other `kinds`."""
    if not isinstance(value, (Number, Real)):
        return value
    inner = _settled(value.expression, kinds)
    return plain(value) if isinstance(inner, (int, float)) else _of(plain(value), inner)


def _settled(expression: Any, kinds: tuple[type, ...]) -> Any:
    if isinstance(expression, (Size, Read)) and isinstance(expression, kinds):
        return expression.value
    if isinstance(expression, tuple) and not isinstance(expression, (Source, Size, Read)):
        function, left, right = expression
        left, right = _settled(left, kinds), _settled(right, kinds)
        whole = not isinstance(left, tuple) and not isinstance(right, tuple)
        return function(left, right) if whole else (function, left, right)
    return expression


def remember(model: nn.Module, original: nn.Module) -> None:
    """Makes every whole number that the modules of `model`, a copy of `original`, hold a `Number`."""
    visited: set[int] = set()
    for (path, module), (_, source) in zip(walk(model), walk(original), strict=True):
        for name, value in list(held_numbers(module, source, visited)):
            if isinstance(value, (tuple, list)):
                write(module, name, [Number.of(int(item), Source(path, name, i)) for i, item in enumerate(value)])
            else:
                write(module, name, Number.of(int(value), Source(path, name)))


def remembering(value: Any, leaf: Read) -> Any:
    """The same number, or numbers in nested lists, with where they come from."""
    if isinstance(value, list):
        return [remembering(item, leaf) for item in value]
    if type(value) is int:
        return Number.of(value, leaf._replace(value=value))
    return Real.of(value, leaf._replace(value=value)) if type(value) is float else value
