"""How many processes were launched, as `accelerate launch` and torchrun tell them by environment variables."""

from __future__ import annotations

import os

from .errors import RecipeError


def launched() -> int:
    """How many processes were launched for this run."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdigit() else 1


def leads() -> bool:
    """Whether this process is the first of those that were launched, or the only one."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"


def refuse_several(what: str) -> None:
    """Raises RecipeError if several processes were launched for what one has to do alone."""
    if launched() > 1:
        raise RecipeError(
            f"{what} works in one process, and {launched()} were launched: launch one (its own threads use the cores)"
        )
