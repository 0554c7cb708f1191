"""One way to say that a name is not known, with the nearest names that are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """For example: `unknown criterion 'l11': did you mean l1? Known: group_l1, l1`."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    message = f"unknown {kind} {given!r}"
    if near:
        message += f": did you mean {' or '.join(near)}?"
    if len(names) <= 20:
        message += f"{'' if near else '.'} Known: {', '.join(names)}"
    return message
