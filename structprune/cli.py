"""The command line.

Exit codes: 0 done, 1 some runs of a sweep failed, 2 bad input, 3 failed acceptance gate, 4 bound of quality missed,
130 interrupted.
"""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from . import __version__
from .commands import comparing, machine, models, runs

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"structprune {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Prune a network's filters, prove the slim network right, and measure it on this CPU."""


for command in (
    *(runs.run, runs.plan, runs.show, models.inspect, models.init, models.sensitivity, models.profile),
    *(machine.bench, machine.doctor, comparing.compare, comparing.diff, runs.sweep, runs.clean),
    *(machine.list_, models.models),
    *(machine.criteria, machine.allocations, machine.recoveries, machine.methods),
):
    app.command(command.__name__.rstrip("_"))(command)


def main() -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    app()


def _interrupt(number: int, frame: object) -> None:
    """Takes SIGTERM, by which schedulers end a job, as Ctrl-C: all is cleared up, and child processes are ended."""
    raise KeyboardInterrupt
