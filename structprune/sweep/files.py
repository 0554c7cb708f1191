"""The files that a sweep ends in."""

from __future__ import annotations

import json
from pathlib import Path

from ..store import atomic_files
from .picture import draw
from .records import SweepReport
from .table import PICTURE, sweep_csv, sweep_markdown


def write_files(report: SweepReport, folder: Path) -> None:
    """Writes what came of a sweep: sweep.csv, sweep.md and its picture sweep.png, and sweep.json last.

    Args:
        report: The sweep.
        folder: Its folder.
    """
    atomic_files.write_text(folder / "sweep.csv", sweep_csv(report))
    if report.runs:
        atomic_files.write(folder / PICTURE, lambda path: draw(report, path))
    atomic_files.write_text(folder / "sweep.md", sweep_markdown(report))
    atomic_files.write_text(folder / "sweep.json", json.dumps(report.to_data(), indent=1) + "\n")
