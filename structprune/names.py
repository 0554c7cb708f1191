"""Names that a recipe may use from timm, and one way to say that a name is not known."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable

from ._compat import declare_torchvision_ops


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


@functools.cache
def architectures() -> frozenset[str]:
    """timm's models. The first call takes seconds, as it imports timm."""
    declare_torchvision_ops()
    import timm

    return frozenset(str(name) for name in timm.list_models())


@functools.cache
def optimizers() -> frozenset[str]:
    """timm's optimisers."""
    declare_torchvision_ops()
    import timm.optim

    return frozenset(str(name) for name in timm.optim.list_optimizers())
