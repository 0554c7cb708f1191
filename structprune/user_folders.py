"""Where this program keeps what it has measured or fetched for a user."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder that STRUCTPRUNE_CACHE names, else one in the user's cache folder. It need not be there."""
    chosen = os.environ.get("STRUCTPRUNE_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "structprune"


def photographs_folder() -> Path:
    """The folder of photographs that `tools/photographs.py` has fetched. It need not be there."""
    return cache_folder() / "photographs"
