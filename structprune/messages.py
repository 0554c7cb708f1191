"""What messages share: a value on one line, an unknown name with the nearest known ones, files like a missing one."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path


def shown(value: object, limit: int = 80) -> str:
    """`value` for a message: on one line, in quotes if it is text, and shortened if it is long or deep."""
    try:
        text = repr(value[: limit + 1]) if isinstance(value, (str, bytes)) else _SHORT.repr(value)
    except Exception:  # whatever a value's own repr raises
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= limit + 2 else f"{text[:limit]}…"


_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 12
_SHORT.maxother = _SHORT.maxlong = 200


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message for an unknown name: `unknown criterion 'l11': did you mean l1? Known: group_l1, l1`."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 3, 0.5) if isinstance(name, str) and len(name) < 200 else []
    message = f"unknown {kind} {shown(name)}"
    if near:
        message += f": did you mean {' or '.join(near)}?"
    if len(names) <= 20:
        message += f"{'' if near else '.'} Known: {', '.join(names)}"
    return message


def files_like(path: Path, pattern: str) -> list[str]:
    """Lists the files of a folder, those first whose names are most like that of one that is not there.

    Args:
        path: The file that is not there, or the folder itself.
        pattern: A glob, such as `*.yaml`.

    Returns:
        Their paths; none where the folder can't be read.
    """
    try:
        folder = path if path.is_dir() else path.parent
        files = [file for file in sorted(folder.glob(pattern)) if not file.name.startswith(".")]
    except OSError:
        return []
    likeness = {file: difflib.SequenceMatcher(None, path.name[:200], file.name).ratio() for file in files}
    return [str(file) for file in sorted(files, key=lambda file: -likeness[file])]
