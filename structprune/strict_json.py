"""JSON from files that anyone may have written: strict, and bounded in size, depth and amount.

Enters text, leaves plain data or a ValueError of one line. What `json` accepts though JSON does not have it is refused:
NaN and infinities, a key that comes twice, numbers of more than 64 bits, halves of surrogate pairs. It knows nothing of
plans.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .messages import shown

MAX_BYTES = 32 * 2**20
MAX_VALUES = 4_000_000  # each takes up to 100 bytes in memory
MAX_DEPTH = 200  # a module within a module takes two levels
_MAX_INT = 2**63


def read(path: Path) -> Any:
    """The data in a file of UTF-8, of which no more than `MAX_BYTES` are read. Raises ValueError, and OSError."""
    with path.open("rb") as file:
        return parse(file.read(MAX_BYTES + 1).decode("utf-8"))


def parse(text: str) -> Any:
    """The data that `text` holds. Raises ValueError, which says what is wrong and where that is known."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"{len(text):,} characters, over the limit of {MAX_BYTES:,}")
    if text.count(",") + text.count("[") + text.count("{") > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values")
    try:
        data = json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    _check(data)
    return data


def dump(data: Any, sort_keys: bool = False) -> str:
    """JSON on one line. Raises ValueError for what `parse` would refuse, TypeError for what is not plain data."""
    try:
        return json.dumps(data, allow_nan=False, sort_keys=sort_keys)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        keys: set[str] = set()
        twice = next(key for key, _ in pairs if key in keys or keys.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} comes twice in one object")
    return data


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _check(data: Any) -> None:
    """Looks at every value once, level by level, without recursion."""
    level = [[data]]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for values in level:
            for value in values:
                kind = type(value)
                if kind is list:
                    inner.append(value)
                elif kind is dict:
                    inner.append(value.values())
                    for key in value:
                        _check_text(key)
                elif kind is str:
                    _check_text(value)
                elif kind is int and not -_MAX_INT <= value < _MAX_INT:
                    raise ValueError("a whole number that 64 bits don't hold")
                elif kind is float and not math.isfinite(value):
                    raise ValueError("a number that is too large for a float")
        if not inner:
            return
        level = inner
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("text with half of a surrogate pair") from None
