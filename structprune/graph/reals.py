"""Numbers that the model's code reads out of tensors (`x.item()`, `lengths.tolist()`), and remembers that it did."""

from __future__ import annotations

from typing import Any

from .numbers import Number, Read, Real


def remembering(value: Any, leaf: Read) -> Any:
    """The same number, or numbers in nested lists, with where they come from."""
    if isinstance(value, list):
        return [remembering(item, leaf) for item in value]
    if type(value) is int:
        return Number.of(value, leaf._replace(value=value))
    return Real.of(value, leaf._replace(value=value)) if type(value) is float else value
