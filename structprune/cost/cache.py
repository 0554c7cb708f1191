"""Measurements kept on disk, by what they were made on: `$STRUCTPRUNE_CACHE`, or `structprune` in the user's caches."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..runtimes.machine import environment
from ..runtimes.runtime import Runtime
from ..store import atomic_files


def cache_folder() -> Path:
    chosen = os.environ.get("STRUCTPRUNE_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "structprune"


def cached(
    kind: str,
    about: Mapping[str, Any],
    make: Callable[[], Any],
    refresh: bool = False,
    version: str | None = None,
    is_sure: Callable[[Any], bool] = lambda value: True,
) -> Any:
    """What `make` gave, plain JSON, when it was called for the same machine, runtime and `about`.

    `version` is the runtime's engine with its version, by default that of the default runtime. With `refresh`, made
    anew. A file that can't be read counts as none; where none can be written, none is kept; nor is what is not sure by
    `is_sure`.
    """
    if not refresh and (entry := held(kind, about, version)) is not None:
        return entry
    value = make()
    if is_sure(value):
        keep(kind, about, value, version)
    return value


def held(kind: str, about: Mapping[str, Any], version: str | None = None) -> Any:
    """What is kept of this machine, runtime and `about`; None where nothing is, or nothing that can be read."""
    try:
        path, key = _place(kind, about, version)
        entry = json.loads(path.read_text(encoding="utf-8"))
        return entry["value"] if entry["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):  # RuntimeError: no home
        return None


def keep(kind: str, about: Mapping[str, Any], value: Any, version: str | None = None) -> None:
    """Writes what `held` gives; where nothing can be written, nothing is."""
    with contextlib.suppress(OSError, RuntimeError):
        path, key = _place(kind, about, version)
        atomic_files.write_text(path, json.dumps({"key": key, "value": value}) + "\n")


def _place(kind: str, about: Mapping[str, Any], version: str | None) -> tuple[Path, Any]:
    here = environment()
    machine = [here.processor, here.instructions, here.cores]
    text = json.dumps({"machine": machine, "runtime": version or Runtime().version, **about}, sort_keys=True)
    name = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"
    return cache_folder() / name, json.loads(text)
