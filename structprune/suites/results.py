"""The file of a suite's results: written anew after each result, so that an interrupted run goes on from there."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .command_line import fail
from .pool import Record
from .worker import error_line

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R")
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


@dataclass(frozen=True)
class Failure:
    """What stands in place of a result: of a network, or of a tool on it.

    Attributes:
        model: The network.
        error: What was raised, in one line.
    """

    model: str
    error: str

    @classmethod
    def of(cls, model: str, error: Exception, limit: int = 160) -> Failure:
        """A failure of `model` by what was raised, its text cut off after `limit` characters."""
        return cls(model, error_line(error, limit))


def data_of(record: DataclassInstance) -> Record:
    """A record as plain data: its fields by name, but those that are None."""
    return {key: value for key, value in asdict(record).items() if value is not None}


def record_each(
    names: Sequence[str],
    measure: Callable[[str], R],
    path: Path | None,
    document: Callable[[list[R]], Record],
) -> list[R]:
    """Measures networks one after the other. Ctrl-C ends the program with exit code 130.

    Args:
        names: Of the networks, which are shown as it goes.
        measure: Makes the record of one.
        path: A JSON file that is written anew after each network.
        document: What that file says, from the records so far.

    Returns:
        The records, in the order of `names`.
    """
    records: list[R] = []
    try:
        for number, name in enumerate(names, start=1):
            print(f"{name} ({number} of {len(names)})", file=sys.stderr)
            records.append(measure(name))
            if path:
                replace_text(path, json.dumps(document(records), indent=1) + "\n")
    except KeyboardInterrupt:
        print(f"interrupted after {len(records)} networks; --json has what is done", file=sys.stderr)
        raise SystemExit(130) from None
    return records


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
