"""The file of a suite's results: written anew after each result, so that an interrupted run goes on from there."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import fail
from .pool import Record

_HOME = Path(__file__).parents[2]


class Results:
    """Sections of results, each result by the name of its network.

    Args:
        path: The file, which need not be there yet. One that can't be read ends the program with one line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.data: Record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError) as error:
            fail(f"{path} can't be read ({error}): mend or move it")

    def section(self, name: str) -> Record:
        """The results of a section, which is made if it is not there."""
        return self.data.setdefault(name, {})

    def put(self, section: str, key: str, value: Any) -> None:
        """Adds a result, and writes the file anew, a line for each entry, beside the old one and in its place."""
        self.section(section)[key] = value
        sections = []
        for name, entries in self.data.items():
            lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entries[key])}" for key in sorted(entries))
            sections.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
        replace_text(self.path, "{\n" + ",\n".join(sections) + "\n}\n")


def replace_text(path: Path, text: str) -> None:
    """Writes a file beside the old one and puts it in its place, so that no reader ever meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def stamp(versions: dict[str, str]) -> Record:
    """What a record says of its own origin: the day, and the versions at work."""
    return {"date": datetime.date.today().isoformat(), "versions": versions}


def origin(records: Sequence[Record]) -> str:
    """With what and when the records were made, by their stamps; all versions, should there be several."""
    packages = list(dict.fromkeys(name for record in records for name in record["made"]["versions"]))
    versions = []
    for name in packages:
        each = dict.fromkeys(record["made"]["versions"].get(name, "?") for record in records)
        versions.append(f"{name} {' and '.join(each)}")
    dates = sorted({record["made"]["date"] for record in records})
    days = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "never"
    return f"Made {days} with {', '.join(versions)}."


def with_commit(version: str) -> str:
    """structprune's version with the commit that is checked out, marked where files were changed since."""
    if not (_HOME / ".git").exists():
        return version
    command = ["git", "-C", str(_HOME), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return f"{version} ({subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()})"
    except (OSError, subprocess.CalledProcessError):
        return version
