"""The files that a sweep ends in."""

from __future__ import annotations

import json
from pathlib import Path

from ..store import atomic_files
from .records import SweepReport
from .table import sweep_csv, sweep_markdown


def write_files(report: SweepReport, folder: Path) -> None:
    """Writes what came of a sweep: sweep.csv and sweep.md, and sweep.json last.

    Args:
        report: The sweep.
        folder: Its folder.
    """
    atomic_files.write_text(folder / "sweep.csv", sweep_csv(report))
    atomic_files.write_text(folder / "sweep.md", sweep_markdown(report))
    atomic_files.write_text(folder / "sweep.json", json.dumps(report.to_data(), indent=1) + "\n")
