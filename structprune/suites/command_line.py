"""What the commands in tools/ share: bad input is one line and exit code 2; names by commas, Ctrl-C, a progress bar."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..messages import unknown
from .pool import Limits, Record, Worker, run

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


def fail(message: str) -> NoReturn:
    """Ends the program with one line and exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


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


def record_each(
    models: Sequence[str],
    measure: Callable[[str], Record],
    path: Path | None,
    about: Callable[[list[Record]], Record],
) -> list[Record]:
    """Measures models one after the other. Ctrl-C ends the program with exit code 130.

    Args:
        models: Their names, which are shown as it goes.
        measure: Makes the record of one.
        path: A JSON file that is written anew after each: the records as `networks`.
        about: What the file says beside them.

    Returns:
        The records, in the order of `models`.
    """
    records: list[Record] = []
    try:
        for number, name in enumerate(models, start=1):
            print(f"{name} ({number} of {len(models)})", file=sys.stderr)
            records.append(measure(name))
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({**about(records), "networks": records}, indent=1) + "\n", encoding="utf-8")
    except KeyboardInterrupt:
        print(f"interrupted after {len(records)} networks; --json has what is done", file=sys.stderr)
        raise SystemExit(130) from None
    return records
