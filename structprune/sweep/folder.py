"""The folder of a sweep: which sweep it takes, where its runs lie, and what has come of them.

sweep.yaml                 what is swept, by which a second start knows that it is the same
recipes/ARM-seedN.yaml     the recipe of each run
logs/ARM-seedN.log         what its process printed
ARM-seedN/                 its folder; all share the store beside them
sweep.json, sweep.csv, …   what came of all
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from ..errors import RecipeError, StoreError
from ..json_records import read_record
from ..recipe import read_yaml
from ..report import Report
from ..run import held
from ..store import atomic_files
from .processes import Ending, Job
from .reading import Run, Sweep

_STORED = "sweep.yaml"
_LAST = 4096  # bytes of a log that are read


class SweepFolder:
    """A sweep's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def claim(self, sweep: Sweep) -> None:
        """Checks that this sweep can go here. Raises RecipeError where another one, or something else, is here."""
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError(f"the output folder {self.path} is a file: give another by --out")
        stored = self.path / _STORED
        if not stored.is_file():
            if self.path.is_dir() and any(not path.name.startswith(".") for path in self.path.iterdir()):
                raise RecipeError(f"{self.path} is not empty and holds no sweep: give another --out")
        elif not sweep.holds(_kept(stored)):
            raise RecipeError(
                f"{self.path} holds another sweep: give another --out, or its recipe, arms and seeds, or more, to go on"
            )

    def held(self) -> AbstractContextManager[None]:
        """Holds the folder against other sweeps; raises RecipeError where one is at work in it."""
        return held(self.path)

    def open(self, sweep: Sweep) -> None:
        """Writes what is swept, and the recipe of each run. The folder is held."""
        self.claim(sweep)  # anew, now that nobody else can change it
        atomic_files.clear(self.path)
        atomic_files.write_text(self.path / _STORED, yaml.safe_dump(sweep.to_data(), sort_keys=False))
        (self.path / "logs").mkdir(exist_ok=True)
        for run in sweep.runs:
            text = yaml.safe_dump(run.recipe.model_dump(mode="json"), sort_keys=False)
            atomic_files.write_text(self.path / "recipes" / f"{run.name}.yaml", text)

    def job(self, run: Run) -> Job:
        """The job that makes a run."""
        path = self.path.resolve()
        folder, log = path / run.name, path / "logs" / f"{run.name}.log"
        return Job(run.name, path / "recipes" / f"{run.name}.yaml", folder, log, Path.cwd())

    def report(self, run: Run) -> Report | None:
        """The report of a run that finished, be its gate passed or not."""
        path = self.path / run.name / "report.json"
        if not path.is_file():
            return None
        try:
            return read_record(path, Report)
        except StoreError as error:
            raise RecipeError(f"{error}: remove the folder {path.parent}, and start the sweep again") from error

    def error(self, run: Run, ending: Ending) -> str:
        """What a failed run said in the end, or how its process ended."""
        log = self.path / "logs" / f"{run.name}.log"
        with log.open("rb") as stream:
            stream.seek(-min(_LAST, os.path.getsize(log)), os.SEEK_END)
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
        lines = [" ".join(line.split()) for line in lines if line.strip()]
        messages = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        if ending.code >= 0 and messages:
            return "; ".join(lines[messages[-1] :]).removeprefix("error: ")
        if ending.code < 0:
            return f"ended by signal {-ending.code}" + (" (out of memory?)" if ending.code == -9 else "")
        return f"exit code {ending.code}: {lines[-1] if lines else 'nothing was printed'}; see {log}"


def _kept(path: Path) -> Any:
    try:
        return read_yaml(path)
    except RecipeError as error:
        raise RecipeError(f"{error}: give another folder by --out") from error
