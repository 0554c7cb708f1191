"""What all commands share: where they print, errors and interruptions in one line, and how to go on after one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from .errors import StructPruneError
from .launch import leads

_errors = Console(stderr=True)


def output(width: int = 110) -> Console:
    """Standard output, at a width that fits the tables if it is not a terminal."""
    quiet = not leads()  # one process prints for all
    return Console(quiet=quiet) if sys.stdout.isatty() else Console(width=width, quiet=quiet)


def folder_of(out: str | None, recipe: Path) -> Path:
    return Path(out) if out else Path("runs") / recipe.stem


def resume_command(
    verb: str,
    recipe: Path,
    out: str | None,
    overrides: list[str] | None,
    folder: Path | None = None,
    flags: Sequence[str] = (),
) -> Callable[[], str]:
    """Makes a function that says, after an interruption, how to go on, if anything was written."""

    options = [*(("--out", out) if out else ()), *(x for value in overrides or () for x in ("--set", value))]
    words = ["structprune", verb, str(recipe), *options, *flags, "--resume"]
    return go_on_by(words, (folder or folder_of(out, recipe)) / "recipe.yaml")


def go_on_by(words: Sequence[str], mark: Path) -> Callable[[], str]:
    """Makes a function that says, after an interruption, by which command to go on, if `mark` was written."""
    return lambda: f"go on with: {shlex.join(words)}" if mark.is_file() else "nothing was written"


@contextmanager
def plain_errors(after_interrupt: Callable[[], str]) -> Iterator[None]:
    """Turns the package's errors into one line and an exit code; anything else is a defect and keeps its trace."""
    try:
        yield
    except StructPruneError as error:
        if leads():  # one process says it for all
            _errors.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        if leads():
            _errors.print(f"interrupted; {escape(after_interrupt())}", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
