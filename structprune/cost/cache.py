"""Measurements kept on disk, by what they were made on: `$STRUCTPRUNE_CACHE`, or `structprune` in the user's caches."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..runtimes.machine import environment
from ..runtimes.runtime import Runtime
from ..store import atomic_files
from ..user_folders import cache_folder

Value = TypeVar("Value")


class Entry(BaseModel, Generic[Value]):
    """What a file of the cache holds. `cached_records` has a class for each kind of measurement."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    kind: ClassVar[str]  # with which the names of such files begin

    key: dict[str, JsonValue] = Field(
        description="what it was measured on: the machine, the runtime and the settings; on others the file counts as "
        "none"
    )
    value: Value = Field(description="what was measured")


def cached(
    record: type[Entry[Value]],
    about: Mapping[str, Any],
    make: Callable[[], Value],
    refresh: bool = False,
    version: str | None = None,
    is_sure: Callable[[Value], bool] = lambda value: True,
) -> Value:
    """What `make` gave when it was called for the same machine, runtime and `about`.

    `version` is the runtime's engine with its version, by default that of the default runtime. With `refresh`, made
    anew. A file that does not hold such a record counts as none; where none can be written, none is kept. What is not
    sure by `is_sure` is neither kept nor read.
    """
    if not refresh and (value := held(record, about, version)) is not None and is_sure(value):
        return value
    value = make()
    if is_sure(value):
        keep(record, about, value, version)
    return value


def held(record: type[Entry[Value]], about: Mapping[str, Any], version: str | None = None) -> Value | None:
    """What is kept of this machine, runtime and `about`; None where that is nothing, or no sound record."""
    try:
        path, key = _place(record.kind, about, version)
        entry = record.model_validate_json(path.read_bytes())
        return entry.value if entry.key == key else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: no home
        return None


def keep(record: type[Entry[Value]], about: Mapping[str, Any], value: Value, version: str | None = None) -> None:
    """Writes what `held` gives; where nothing can be written, and of what is no sound record, nothing is."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        path, key = _place(record.kind, about, version)
        atomic_files.write_text(path, record(key=key, value=value).model_dump_json() + "\n")


def _place(kind: str, about: Mapping[str, Any], version: str | None) -> tuple[Path, dict[str, JsonValue]]:
    here = environment()
    machine = [here.processor, here.instructions, here.cores]
    text = json.dumps({"machine": machine, "runtime": version or Runtime().version, **about}, sort_keys=True)
    name = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"
    return cache_folder() / name, json.loads(text)
