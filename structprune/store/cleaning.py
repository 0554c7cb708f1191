"""Frees a store of artefacts: all but what an interrupted run can go on from, and nothing while a run is at work.

A finished run needs nothing of the store: its folder has its own copies. What an interrupted one made or found
stands in its log.jsonl.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import StoreError

_DOOR = ".cleaning.lock"  # held while a run enters, and while the store is cleaned
_INSIDE = ".at-work-{}.lock"  # held by a run until it ends, however it ends


@dataclass(frozen=True)
class Entry:
    """An artefact in the store, or what an interrupted stage left of one.

    `freed` is how many bytes its removal frees. `needed_by` is the folder of an interrupted run that can go on from it.
    """

    path: Path
    freed: int
    needed_by: Path | None = None


@contextmanager
def at_work(root: Path) -> Iterator[None]:
    """Keeps a store from being cleaned; several runs may be at work. Raises StoreError if it can't be written."""
    try:
        is_new = not root.exists()
        root.mkdir(parents=True, exist_ok=True)
        inside = FileLock(root / _INSIDE.format(f"{os.getpid()}-{os.urandom(4).hex()}"))
        with _through_the_door(root, timeout=-1):
            _any_held(root, "*.lock")  # for the locks of killed runs, which it clears away
            inside.acquire()
    except (OSError, NotImplementedError) as error:
        raise StoreError(f"{root}, where what runs make is kept, can't be written ({error})") from error
    try:
        yield
    finally:
        _end(inside)
        if is_new:
            with suppress(OSError):
                root.rmdir()  # where nothing was made


@contextmanager
def _through_the_door(root: Path, timeout: float) -> Iterator[None]:
    door = FileLock(root / _DOOR, timeout=timeout)
    door.acquire()
    try:
        yield
    finally:
        _end(door)


def _end(lock: FileLock) -> None:
    with suppress(OSError):
        Path(lock.lock_file).unlink()  # while it is held: whoever waits for it sees that it is gone
    lock.release()


def _any_held(root: Path, pattern: str) -> bool:
    """Whether a run holds one of these locks. Removes those of runs that were killed."""
    is_held = False
    for path in root.glob(pattern):
        if path.name == _DOOR:
            continue
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            is_held = True
        else:
            _end(lock)
    return is_held


def clean(root: Path, places: Iterable[Path], remove: bool) -> list[Entry]:
    """Lists what a store holds. If `remove`, remove all that no interrupted run needs.

    Args:
        root: the store.
        places: folders in which the folders of runs are.
        remove: whether to remove, or only to list.

    Returns:
        What the store held.

    Raises:
        StoreError: there is no store, or a run is at work with it.
    """
    if not root.is_dir():
        raise StoreError(f"there is no store at {root}: give the folder that runs are in")
    busy = StoreError(f"a run is at work with {root}: clean it when that has ended")
    try:
        with _through_the_door(root, timeout=10):
            if _any_held(root, _INSIDE.format("*")):
                raise busy
            entries = _entries(root, [run for place in places for run in _interrupted(place)])
            for entry in entries if remove else ():
                if entry.needed_by is None:
                    shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink(missing_ok=True)
            return entries
    except Timeout:
        raise busy from None
    except (OSError, NotImplementedError) as error:
        raise StoreError(f"{root} can't be cleaned ({error})") from error


def describe(root: Path, entries: Sequence[Entry], removed: bool) -> Iterator[str]:
    """Yields a line for each entry, and one for all."""
    for entry in entries:
        state = f"kept, {entry.needed_by} goes on from it" if entry.needed_by else "removed" if removed else "can go"
        yield f"{entry.freed / 1e6:10.2f} MB  {entry.path.name}: {state}"
    freed = sum(entry.freed for entry in entries if entry.needed_by is None) / 1e6
    done = "were freed" if removed else "can be freed by --yes"
    yield f"{root}: {freed:.2f} MB {done}; finished runs keep their files"


def _interrupted(place: Path) -> Iterator[Path]:
    for recipe in place.glob("*/recipe.yaml"):
        if not (recipe.parent / "report.json").exists():
            yield recipe.parent


def _entries(root: Path, interrupted: Sequence[Path]) -> list[Entry]:
    needed = {name: run for run in interrupted for name in _used(run)}
    entries = []
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        needed_by = needed.get(path.name)
        if path.suffix == ".part" and interrupted:  # the log does not say whose it is
            needed_by = interrupted[0]
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        entries.append(Entry(path, sum(file.stat().st_size for file in files), needed_by))
    return entries


def _used(run: Path) -> Iterator[str]:
    """The artefacts that a run's log names."""
    with suppress(OSError):
        for line in (run / "log.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, AttributeError):
                yield str(json.loads(line).get("artefact"))
