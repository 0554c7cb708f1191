"""Checks of the arguments of public functions: for a wrong one, an error of the project's own in one line.

    @checked(graph=instance(DependencyGraph, "what structprune.trace gives"), seed=whole(0), progress=function)
    def score(graph, ..., seed=0, progress=...):

A check takes a value and returns it in plain types (a NumPy integer as an int), or raises Wrong with what is expected.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from .errors import RecipeError, StructPruneError
from .messages import shown

P = ParamSpec("P")
T = TypeVar("T")
Check = Callable[[Any], Any]


class Wrong(Exception):
    """Raised by a check; its text is what is expected instead of the value."""


def checked(
    error: type[StructPruneError] = RecipeError, /, **checks: Check
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Checks the arguments of a function by their names before it runs; `error` is what it raises then."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                if name in checks:
                    try:
                        bound.arguments[name] = checks[name](value)
                    except Wrong as expected:
                        raise error(f"{function.__name__}: {name}={_described(value)}: give {expected}") from None
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def _described(value: Any) -> str:
    """Numbers and text as they are; for anything else its type."""
    plain = value is None or isinstance(value, (bool, int, float, str, bytes)) or not value.__class__.__module__
    return shown(value) if plain else f"a {type(value).__name__}"


def whole(least: int = -(2**63), most: int = 2**63 - 1) -> Check:
    """Checks for a whole number between two others; True and 2.0 are refused."""

    def check(value: Any) -> int:
        sound = isinstance(value, numbers.Integral) and type(value).__name__ not in ("bool", "bool_")
        if not sound or not least <= int(value) <= most:
            ends = (f" of at least {least}" if least > -(2**63) else "") + (f" to {most:,}" if most < 2**63 - 1 else "")
            raise Wrong(f"a whole number{ends}")
        return int(value)

    return check


def number(above: float = -math.inf, most: float = math.inf, least: float = -math.inf) -> Check:
    """Checks for a finite number, greater than `above`, and no less than `least` and no more than `most`."""
    bounds = [(above, "over "), (least, "of at least "), (most, "of at most ")]
    expected = "a number " + " and ".join(f"{word}{bound:g}" for bound, word in bounds if math.isfinite(bound))

    def check(value: Any) -> float:
        try:
            plain = float(value) if isinstance(value, numbers.Real) and type(value).__name__ != "bool" else math.nan
        except OverflowError:
            plain = math.nan
        if not (math.isfinite(plain) and above < plain <= most and least <= plain):
            raise Wrong(expected.strip())
        return int(value) if isinstance(value, numbers.Integral) else plain

    return check


def instance(kind: type | tuple[type, ...], expected: str) -> Check:
    """Checks for an instance of `kind`; `expected` is what the message asks for."""

    def check(value: Any) -> Any:
        if not isinstance(value, kind):
            raise Wrong(expected)
        return value

    return check


def optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def several(check: Check, expected: str) -> Check:
    """Checks for a list, tuple or the like (not text) of what passes `check`; returns a list."""

    def several_(value: Any) -> list[Any]:
        if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
            raise Wrong(expected)
        try:
            return [check(item) for item in value]
        except (Wrong, TypeError):
            raise Wrong(expected) from None

    return several_


def mapping(check: Check, expected: str) -> Check:
    """Checks for a mapping of text to what passes `check`; returns a dict."""

    def mapping_(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise Wrong(expected)
        try:
            return {key: check(item) for key, item in value.items()}
        except Wrong:
            raise Wrong(expected) from None

    return mapping_


def one_of(*names: str) -> Check:
    """Checks for one of these texts."""

    def check(value: Any) -> str:
        if value not in names:
            raise Wrong(" or ".join(map(repr, names)))
        return value

    return check


def function(value: Any) -> Any:
    if not callable(value):
        raise Wrong("a function")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong("True or False")
    return value


def path(value: Any) -> Any:
    if not isinstance(value, (str, os.PathLike)) or "\0" in os.fspath(value) or not os.fspath(value):
        raise Wrong("a path")
    return value
