"""Files appear whole or not at all: written aside in the same folder, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write(path: Path, writer: Callable[[Path], object]) -> Path:
    """Calls `writer` with a path beside `path`, then moves the result into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    try:
        writer(aside)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(aside, 0o666 & ~umask)  # some libraries write for the owner alone
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    return write(path, lambda aside: aside.write_text(text, encoding="utf-8"))
