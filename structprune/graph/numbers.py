"""Whole numbers that remember which module attribute, or which tensor's size, they came from.

A module's forward reads widths from its own attributes (`x.reshape(b, n, 3, self.num_heads, self.head_dim)`), and a
slim module works only if those follow. So tracing runs on a copy whose whole-number attributes are `Number`s, and
`x.shape` gives `Number`s too: they behave as `int`, and arithmetic among them keeps an expression. Where one arrives as
a size, it names the attribute; where one is compared, the comparison is noted (`noting`), as the code may take another
path at another width.
"""

from __future__ import annotations

import dis
import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from ..held import held_numbers, write
from ..modules import walk


class Source(NamedTuple):
    """A number that a module holds (see `held`); `place` counts within it if it is a tuple or list, else None."""

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


@dataclass(frozen=True)
class Condition:
    """A comparison of numbers in the model's code: the expression `test`, (function, left, right), was `outcome`.

    `module` is the path of the module that ran, `line` the file and number of the line.
    """

    test: tuple[Any, Any, Any]
    outcome: bool
    module: str
    line: str


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


def _comparison(function: Callable[[Any, Any], bool]) -> Callable[[Number, Any], Any]:
    def method(self: Number, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        outcome = function(int(self), int(other) if isinstance(other, Number) else other)
        notes = _NOTES.get()
        if notes is not None:
            notes(function, self, other, outcome, sys._getframe(1))
        return outcome

    return method


for _name in ("add", "sub", "mul", "floordiv", "mod", "pow"):
    setattr(Number, f"__{_name}__", _binary(getattr(operator, _name), swapped=False))
    setattr(Number, f"__r{_name}__", _binary(getattr(operator, _name), swapped=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Number, f"__{_name}__", _comparison(getattr(operator, _name)))

_NOTES: ContextVar[Callable[..., None] | None] = ContextVar("notes", default=None)
_LIBRARIES = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, __file__))


@contextmanager
def noting(note: Callable[[Condition], None], module: Callable[[], str]) -> Iterator[None]:
    """Calls `note` for each comparison that the model's own code makes; `module` says which module runs.

    Libraries' own checks don't count: what they refuse, they refuse with an error. Nor do the comparisons by which a
    cache finds what it keeps: at another number it would work that out.
    """

    def notes(function: Any, left: Number, right: Any, outcome: bool, frame: Any) -> None:
        if frame.f_code is Number.__bool__.__code__:
            frame = frame.f_back
        file = frame.f_code.co_filename
        if file.startswith(_LIBRARIES) or f"{os.sep}einops{os.sep}" in file:
            return
        if function is operator.eq and outcome and "CALL" in dis.opname[frame.f_code.co_code[frame.f_lasti]]:
            return
        note(Condition((function, expression(left), expression(right)), outcome, module(), f"{file}:{frame.f_lineno}"))

    token = _NOTES.set(notes)
    try:
        yield
    finally:
        _NOTES.reset(token)


def expression(value: Any) -> Any:
    return value.expression if isinstance(value, Number) else value


def evaluate(expression: Any, values: Mapping[Any, Any]) -> Any:
    """The value of an expression with other values for some attributes and sizes. Raises KeyError for one not given."""
    if isinstance(expression, (Source, Size)):
        return values[expression]
    if isinstance(expression, tuple):
        function, left, right = expression
        return function(evaluate(left, values), evaluate(right, values))
    return expression


def leaves(expression: Any) -> list[Source | Size]:
    """The attributes and sizes in an expression."""
    if isinstance(expression, (Source, Size)):
        return [expression]
    if isinstance(expression, tuple):
        return [*leaves(expression[1]), *leaves(expression[2])]
    return []


def sources(expression: Any) -> list[Source]:
    """The attributes in an expression."""
    return [leaf for leaf in leaves(expression) if isinstance(leaf, Source)]


def settled(value: Any) -> Any:
    """A number with the sizes of tensors in it as plain numbers, so that only attributes are left to follow."""
    if not isinstance(value, Number):
        return value
    inner = _settled(value.expression)
    return int(value) if isinstance(inner, int) else Number.of(int(value), inner)


def _settled(expression: Any) -> Any:
    if isinstance(expression, Size):
        return expression.value
    if isinstance(expression, tuple) and not isinstance(expression, Source):
        function, left, right = expression
        left, right = _settled(left), _settled(right)
        plain = not isinstance(left, tuple) and not isinstance(right, tuple)
        return function(left, right) if plain else (function, left, right)
    return expression


def remember(model: nn.Module, original: nn.Module) -> None:
    """Makes every whole number that the modules of `model`, a copy of `original`, hold a `Number`."""
    seen: set[int] = set()
    for (path, module), (_, source) in zip(walk(model), walk(original), strict=True):
        for name, value in list(held_numbers(module, source, seen)):
            if isinstance(value, (tuple, list)):
                write(module, name, [Number.of(int(item), Source(path, name, i)) for i, item in enumerate(value)])
            else:
                write(module, name, Number.of(int(value), Source(path, name)))
