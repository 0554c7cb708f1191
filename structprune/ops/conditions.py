"""Comparisons of numbers that the model's own code makes while it is recorded: where the code chooses its path."""

from __future__ import annotations

import dis
import operator
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Condition:
    """A comparison in the model's code: the expression `test`, (function, left, right), was `outcome`.

    `module` is the path of the module that ran, `line` the file and number of the line, and `after` the name of the
    node that was recorded last.
    """

    test: tuple[Any, Any, Any]
    outcome: bool
    module: str
    line: str
    after: str = ""


_LISTENER: ContextVar[Callable[[Condition], bool] | None] = ContextVar("listener", default=None)
_MODULE: ContextVar[Callable[[], str]] = ContextVar("module", default=str)
_LIBRARIES = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep)


@contextmanager
def noting(note: Callable[[Condition], bool], module: Callable[[], str]) -> Iterator[None]:
    """Calls `note` for each comparison that the model's own code makes, whose outcome is then what `note` returns.

    `module` says which module runs. Libraries' own checks don't count: what they refuse, they refuse with an error. Nor
    do the comparisons by which a cache finds what it keeps: at another number it would work that out.
    """
    listener, path = _LISTENER.set(note), _MODULE.set(module)
    try:
        yield
    finally:
        _LISTENER.reset(listener)
        _MODULE.reset(path)


def compared(function: Callable[[Any, Any], bool], left: Any, right: Any, outcome: bool) -> bool:
    """The outcome of a comparison that a method of a number was asked for, noted if the model's code asked."""
    note = _LISTENER.get()
    if note is None:
        return outcome
    frame: Any = sys._getframe(2)  # who called the method
    while frame.f_code.co_filename.startswith(_LIBRARIES[1]):  # `if n:` compares with 0 by way of this package
        frame = frame.f_back
    file = frame.f_code.co_filename
    if file.startswith(_LIBRARIES) or f"{os.sep}einops{os.sep}" in file:
        return outcome
    if function is operator.eq and outcome and "CALL" in dis.opname[frame.f_code.co_code[frame.f_lasti]]:
        return outcome
    test = (function, getattr(left, "expression", left), getattr(right, "expression", right))
    return note(Condition(test, outcome, _MODULE.get()(), f"{file}:{frame.f_lineno}"))
