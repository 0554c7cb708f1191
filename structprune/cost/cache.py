"""Measurements kept on disk, by what they were made on: `$STRUCTPRUNE_CACHE`, or `structprune` in the user's caches."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..bench.machine import environment
from ..bench.session import runtime_name
from ..store import files


def cache_folder() -> Path:
    chosen = os.environ.get("STRUCTPRUNE_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "structprune"


def cached(
    kind: str,
    about: Mapping[str, Any],
    make: Callable[[], Any],
    refresh: bool = False,
    version: str | None = None,
    sure: Callable[[Any], bool] = lambda value: True,
) -> Any:
    """What `make` gave, plain JSON, when it was called for the same machine, runtime and `about`.

    `version` is the runtime's engine with its version, onnxruntime on the CPU by default.
    With `refresh`, made anew. A file that can't be read counts as none; where none can be written, none is kept; nor is
    what is not `sure`.
    """
    try:
        folder = cache_folder()
    except RuntimeError:  # no home
        return make()
    here = environment()
    machine = [here["processor"], here["instructions"], here["cores"]]
    key = {"machine": machine, "runtime": version or runtime_name(), **about}
    text = json.dumps(key, sort_keys=True)
    path = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"
    if not refresh:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            if held["key"] == json.loads(text):
                return held["value"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
    value = make()
    if not sure(value):
        return value
    with contextlib.suppress(OSError):
        files.write_text(path, json.dumps({"key": key, "value": value}) + "\n")
    return value
