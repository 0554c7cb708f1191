"""What the commands in tools/ share: one line and exit code 2 for bad input, options, Ctrl-C, a bar."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..messages import unknown
from ..timm_names import architectures
from .pool import Limits, Record, Worker, run

N = TypeVar("N", int, float)
console = Console(stderr=True)


class Parser(argparse.ArgumentParser):
    """An argument parser that ends as `fail` does.

    Args:
        documentation: The docstring of the command's module, shown by `--help` line by line.
    """

    def __init__(self, documentation: str | None) -> None:
        head, _, details = (documentation or "").partition("\n\n")
        super().__init__(description=head, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        fail(message)


def fail(message: str, code: int = 2) -> NoReturn:
    """Ends the program with one line and an exit code, 2 for bad input."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def note(text: str) -> None:
    """One line on the error stream, as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def interrupt(*_: object) -> NoReturn:
    """A signal handler that does what Ctrl-C does."""
    raise KeyboardInterrupt


def command() -> str:
    """The command line of this program, as it may be typed again."""
    return shlex.join([Path(sys.executable).name, *sys.argv])


def names(text: str) -> list[str]:
    """The names in a list by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def models(text: str) -> list[str]:
    """The names of timm's models in a list by commas. One that timm does not know ends the program with one line."""
    chosen = names(text)
    if not chosen:
        fail("no model is named: give timm names, for example resnet18,mobilenetv2_100")
    for name in chosen:
        check_known("model", name.partition(".")[0], architectures())
    return chosen


def positive(text: str) -> float:
    """A finite number over 0, as an option is given."""
    value = _number(float, text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number over 0")
    return value


def whole(text: str) -> int:
    """A whole number, 1 or more, as an option is given."""
    value = _number(int, text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return value


def share(text: str) -> float:
    """A number between 0 and 1, as an option is given."""
    value = _number(float, text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a share between 0 and 1, for example 0.5")
    return value


def new_file(text: str) -> Path:
    """A file that can be written, as an option is given: its folder is there."""
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: the folder {path.parent} does not exist")
    return path


def check_installed(package: str, otherwise: str = "") -> None:
    """Ends the program with one line, `otherwise` at its end, if a package is not installed."""
    try:
        version(package)
    except PackageNotFoundError:
        fail(f"{package} is not installed: pip install {package}{otherwise}")


def _number(kind: type[N], text: str) -> N:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None


def stdout(width: int) -> Console:
    """Where tables go: as wide as the terminal, or `width` where there is none."""
    return Console(width=None if sys.stdout.isatty() else width)


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Ends the program with one line, which names the nearest, if `name` is not among the known ones."""
    if name not in (known := frozenset(known)):
        fail(unknown(kind, name, known))


def follow(module: str, tasks: Sequence[Record], limits: Limits, title: str) -> Iterator[tuple[Record, Record]]:
    """`pool.run` with a bar (on a terminal) that shows what each process is at."""
    if not tasks:
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[busy]}"), console=console, transient=True) as progress:
        bar = progress.add_task(title, total=len(tasks), busy="")

        def watch(workers: list[Worker]) -> None:
            busy = (
                f"{worker.task['model']} {worker.stage} {worker.seconds:.0f} s"
                for worker in workers
                if worker.task and "model" in worker.task
            )
            progress.update(bar, busy=escape(", ".join(busy)))

        with closing(run(module, tasks, limits, watch)) as outcomes:
            for outcome in outcomes:
                progress.advance(bar)
                yield outcome
