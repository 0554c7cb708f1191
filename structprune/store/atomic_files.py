"""Files appear whole or not at all: written aside in the same folder, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import StoreError

LOCK = ".saving.lock"  # in a folder while files that belong together are written into it
PATIENCE = 60  # seconds that one saver waits for another

_ASIDE = re.compile(r"\..+\.[0-9a-f]{16}\.part")

Writer = Callable[[Path], object]


def write(path: Path, writer: Writer) -> Path:
    """Calls `writer` with a path beside `path`, then moves the result into place."""
    write_all({path: writer})
    return path


def write_text(path: Path, text: str) -> Path:
    return write(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_all(writers: dict[Path, Writer]) -> None:
    """Writes each file aside, in order, and moves them into place once all are whole and on disk.

    Names aside are each writer's own, so that several may write the same file at once: the last one wins.
    """
    asides: dict[Path, Path] = {}
    try:
        for path, writer in writers.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside, mode = _new_file(path)
            asides[path] = aside
            writer(aside)
            os.chmod(aside, mode)  # some libraries write for the owner alone
            flush(aside)
        for path, aside in asides.items():
            os.replace(aside, path)
        for folder in {path.parent for path in asides}:
            flush(folder)
    finally:
        for aside in asides.values():
            aside.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Removes the files that killed writers left in a folder. Nobody may be writing into it."""
    for path in folder.iterdir():
        if _ASIDE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def no_room(error: BaseException | None) -> bool:
    """Whether a full disk is the cause of an error, whatever a library made of it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "no space left on device" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def _new_file(path: Path) -> tuple[Path, int]:
    """An empty file beside `path` under a name that no one has, and the mode that new files have here."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return aside, os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk; for folders, not on systems that can't."""
    folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if folder:
            return  # Windows
        raise
    try:
        os.fsync(descriptor)
    except OSError:
        if not folder:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks `folder`, which is created, against every other saver, of this process or another.

    The lock leaves no file. Raises StoreError if another saver holds it for longer than `PATIENCE`, or if no lock can
    be had there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=PATIENCE)
        lock.acquire()
    except Timeout:
        raise StoreError(f"{folder}: another process has been saving into it for {PATIENCE} s: give another") from None
    except (OSError, ValueError, NotImplementedError) as error:
        raise StoreError(f"{folder} can't be written ({error}): give another folder to save into") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()  # while it is held: whoever waits for the old file sees that it is gone
        lock.release()
