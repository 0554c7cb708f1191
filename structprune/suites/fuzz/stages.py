"""In which stage of a check an exception came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Stamps an exception with the stage in which it came."""
    try:
        yield
    except Exception as error:
        error.stage = name  # type: ignore[attr-defined]
        raise
