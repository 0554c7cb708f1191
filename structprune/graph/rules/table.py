"""The one table of op rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..flow import Value

Rule = Callable[..., Value | list[Value]]
RULES: dict[str, Rule] = {}


R = TypeVar("R", bound=Rule)


def rule(*ops: str) -> Callable[[R], R]:
    """Registers a rule for ATen ops; a second rule for the same op raises."""

    def register(function: R) -> R:
        for op in ops:
            if op in RULES:
                raise ValueError(f"op {op} has a rule already")
            RULES[op] = function
        return function

    return register
