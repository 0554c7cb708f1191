"""When a run was made, how long it took, by which command, and which files it left: what its page says of it besides.

Enters the folder of a run; leaves text. Nothing here is in report.json, which is the same whenever a run is made.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..export import FORMATS

FILES = {
    "report.json": "all that stands here, for programs",
    "plan.json": "which filters stay",
    "groups.json": "members and scores of each group",
    "recipe.yaml": "what was asked for",
    "slim.onnx": "the slim network",
    "slim.safetensors": "its weights",
    "dense.onnx": "the dense network",
    "dense.safetensors": "its weights",
    "dense.summary.csv": "its training",
    "slim.summary.csv": "the slim network's training",
    "environment.json": "the machine",
    "log.jsonl": "what was done when",
}
PROGRAM = "structprune"


class RunFacts(NamedTuple):
    """What a page says of a run beside its report.

    Attributes:
        started: The date and time, in UTC; empty where there is no log.
        duration: Of all commands that worked on it, without the time between them.
        command: By which the run was last started; empty where it was not by the command line.
        files: Those that are there, and what each is.
        ended: When its last event was, in seconds since 1970; None where there is no log.
    """

    started: str
    duration: str
    command: str
    files: dict[str, str]
    ended: float | None = None


def command_line() -> str:
    """The command that this process was started by; empty if it is another program's.

    Returns:
        The command as a shell takes it.
    """
    program = Path(sys.argv[0])
    is_ours = program.name == PROGRAM or program.parts[-2:] == (PROGRAM, "__main__.py")
    return shlex.join([PROGRAM, *sys.argv[1:]]) if is_ours else ""


def facts_of(folder: Path) -> RunFacts:
    """What the files of a run's folder say of it.

    Args:
        folder: Of the run.

    Returns:
        The facts; empty where the folder has no log.
    """
    events = [event for event in _events(folder / "log.jsonl") if isinstance(event.get("time"), float | int)]
    # report.json is written after the page, and is always there in the end
    known = FILES | {file: words for record in FORMATS.values() for file, words in record.files.items()}
    files = {name: words for name, words in known.items() if name == "report.json" or (folder / name).is_file()}
    if not events:
        return RunFacts("", "", "", files)
    starts = [event for event in events if event.get("event") == "started"]
    command = str(starts[-1].get("command") or "") if starts else ""
    started = datetime.fromtimestamp(events[0]["time"], timezone.utc)
    duration = _in_words(_seconds(events))
    return RunFacts(f"{started:%Y-%m-%d %H:%M} UTC", duration, command, files, float(events[-1]["time"]))


def _seconds(events: Sequence[dict[str, Any]]) -> float:
    """From each start to the last event before the next: a run may rest between its plan and --resume."""
    pairs = pairwise(events)
    return float(sum(later["time"] - event["time"] for event, later in pairs if later.get("event") != "started"))


def _events(log: Path) -> list[dict[str, Any]]:
    """The events of a log; a line that was cut off by an interruption is passed over."""
    events = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def _in_words(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
