"""Writes the page of a run into the run's folder."""

from __future__ import annotations

from pathlib import Path

from ..json_records import read_record
from ..store import atomic_files
from .group_details import RunGroups
from .html import render_html
from .records import Report
from .run_facts import facts_of


def write_page(report: Report, folder: Path, name: str) -> Path:
    """Writes report.html of a run.

    Args:
        report: What the run came to.
        folder: That of the run, whose files say what else the page has.
        name: What the page is called.

    Returns:
        The path of the page.

    Raises:
        StoreError: The folder's groups.json is damaged.
    """
    page, details = folder / "report.html", folder / "groups.json"
    members = read_record(details, RunGroups) if details.is_file() else None
    atomic_files.write_text(page, render_html(report, name, facts_of(folder), members))
    return page
