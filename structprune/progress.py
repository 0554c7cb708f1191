"""The progress of a run: a line for each stage, bars for what takes long, and log.jsonl."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .process_state import alone

QUIET = 30.0  # seconds


class Update(Protocol):
    """Moves a bar to a share of its length, with more text behind its description."""

    def __call__(self, share: float, more: str = "") -> None: ...


class Reporter:
    """Writes stages to the terminal (standard error) and events to a log file, once there is a folder for it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.log: Path | None = None

    def event(self, name: str, **fields: Any) -> None:
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"time": round(time.time(), 3), "event": name, **fields}) + "\n")

    def stage(self, text: str, **fields: Any) -> None:
        self.console.print(f"[bold]›[/bold] {escape(text)}", highlight=False)
        self.event("stage", text=text, **fields)

    def note(self, text: str) -> None:
        self.console.print(f"  note: {escape(text)}", highlight=False)

    @contextmanager
    def bar(self, description: str) -> Iterator[Update]:
        """Shows a bar; in a file or a pipe, where nobody would see it, a line every `QUIET` seconds."""
        text, share_done = TextColumn("  {task.description}", markup=False), TextColumn("{task.percentage:>3.0f} %")
        columns = (text, BarColumn(), share_done, TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(description, total=1.0)
            last_line = time.monotonic()

            def update(share: float, more: str = "") -> None:
                nonlocal last_line
                text = f"{description} {more}".rstrip()
                progress.update(task, completed=share, description=text)
                if not self.console.is_terminal and time.monotonic() - last_line >= QUIET:
                    last_line = time.monotonic()
                    left = progress.tasks[0].time_remaining
                    then = "" if left is None else f", {timedelta(seconds=round(left))} left"
                    self.console.print(f"  {text}: {100 * share:.0f} %{then}", highlight=False, markup=False)

            yield update


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses standard output, also of code that is not Python: exporters and solvers print what nobody needs.

    One thread at a time is within, as the process has one standard output.
    """
    with alone(), contextlib.redirect_stdout(io.StringIO()), open(os.devnull, "wb") as nowhere:
        if sys.__stdout__:
            sys.__stdout__.flush()
        kept = os.dup(1)
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
