"""Runs that are killed, each in a process of its own: python -m tests.run.killed_runs RECIPE OUT CALL...

The first is killed before its CALLth change of the file system, the next resumes what that left, and so on.
"""

from __future__ import annotations

import importlib
import io
import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

import structprune as sp
from structprune.progress import Reporter
from tests.run.small_network import short_turns

LATE = ("accelerate", "sklearn.datasets", "sklearn.model_selection", "matplotlib.figure")  # imported once for all runs
CALLS = ("mkdir", "rmdir", "replace", "rename", "unlink", "fsync", "chmod")


def count_calls(at: Callable[[int], None]) -> None:
    """`at` gets the number of each call that changes the file system, before it is made."""
    numbers = itertools.count(1)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            at(next(numbers))
            return call(*arguments, **options)

        return counting

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def run(recipe: str, out: Path) -> None:
    with short_turns():
        sp.run(recipe, out, resume=(out / "recipe.yaml").is_file(), reporter=Reporter(Console(file=io.StringIO())))


def run_and_die(recipe: str, out: Path, call: int) -> bool:
    """Whether the run was killed before it ended."""
    process = os.fork()
    if not process:
        count_calls(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == call else None)
        try:
            run(recipe, out)
        finally:
            os._exit(0 if (out / "report.json").is_file() else 1)
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"the run before call {call} ended with an error")
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    recipe, out, *calls = sys.argv[1:]
    for name in LATE:
        importlib.import_module(name)
    for call in calls:
        if not run_and_die(recipe, Path(out), int(call)):
            break
