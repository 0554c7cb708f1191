"""The folder of a run: who may write into it, and what stays there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from ..errors import GateError, RecipeError, StoreError
from ..export import FORMATS
from ..json_records import read_record
from ..progress import Reporter
from ..recipe import Recipe, read_yaml
from ..records import Plan
from ..report import Report
from ..report.page_file import write_page
from ..report.run_facts import command_line
from ..runtimes import environment
from ..store import atomic_files
from ..store.artefacts import Artefacts
from .runner import Runner

STORE = "STRUCTPRUNE_STORE"  # the environment's word on where artefacts are kept
_BESIDE = ".structprune"
_LOCK = ".run.lock"
_RUN_FILES = ("recipe.yaml", "plan.json", "report.json", "slim.safetensors", "slim.onnx", "dense.onnx")
_NETWORKS = {
    "dense": ("dense.safetensors",),
    "dense_onnx": ("dense.onnx",),
    "saved": ("slim.onnx", "slim.safetensors", "plan.json"),
    "int8": ("dense-int8.onnx", "slim-int8.onnx"),
    "format_files": tuple(file for record in FORMATS.values() for file in record.files),
}


_TRAININGS = {"dense": "dense.summary.csv", "slim": "slim.summary.csv"}  # epoch by epoch, where there was training


def store_of(place: Path) -> Path:
    """Says where runs in a folder keep what they make.

    Args:
        place: The folder in which the runs' folders lie.

    Returns:
        The folder that the environment names (STRUCTPRUNE_STORE), else one in `place`.
    """
    return Path(os.environ.get(STORE) or place / _BESIDE)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a folder, which is made, against other runs.

    Args:
        folder: The folder.

    Returns:
        A context that ends the hold.

    Raises:
        RecipeError: Another run holds it, or it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise RecipeError(f"another run is at work in {folder}: wait for it, or give another --out") from None
    except (OSError, NotImplementedError) as error:
        raise RecipeError(f"the output folder {folder} can't be made ({error}): give another by --out") from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / _LOCK).unlink()  # while it is held: whoever waits for it sees that it is gone
        lock.release()


class RunFolder:
    """A run's folder, and the store beside it that runs in the same place share."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Artefacts(store_of(path.parent))

    def claim(self, recipe: Recipe, resume: bool) -> Report | None:
        """Checks that this run can go here.

        Args:
            recipe: of the run
            resume: whether the user asked to go on

        Returns:
            The report of a finished run that is to be resumed; None for a run to be made.

        Raises:
            RecipeError: it can't go here
            GateError: the finished run's gate failed
        """
        self._can_be_made()
        present = [name for name in _RUN_FILES if (self.path / name).exists()]
        if not present:
            if resume:
                raise RecipeError(
                    f"{self.path} holds no run to resume: leave --resume out, or give its folder by --out"
                )
            return None
        if not resume:
            state = "a run" if "report.json" in present else "an interrupted run"
            raise RecipeError(
                f"{self.path} already holds {state} ({present[0]}): give another --out, or --resume to go on"
            )
        stored = self.path / "recipe.yaml"
        if not stored.is_file() or read_yaml(stored) != recipe.model_dump(mode="json"):
            raise RecipeError(
                f"{self.path} holds a run of another recipe: resume it with the same recipe and --set options"
            )
        return self._finished() if "report.json" in present else None

    @contextmanager
    def opened(self, recipe: Recipe, resume: bool, reporter: Reporter) -> Iterator[None]:
        """Holds the folder against other runs, with the recipe, the environment and a log in it.

        Args:
            recipe: of the run
            resume: whether the user asked to go on
            reporter: writes its log here meanwhile

        Returns:
            A context in which the run is made.

        Raises:
            RecipeError: another run holds it, or has come first
        """
        with held(self.path):
            self.claim(recipe, resume)  # anew, now that nobody else can change it
            atomic_files.clear(self.path)
            reporter.log = self.path / "log.jsonl"
            reporter.event("started", command=command_line())
            text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
            atomic_files.write_text(self.path / "recipe.yaml", text)
            atomic_files.write_text(
                self.path / "environment.json", json.dumps(environment().to_data(), indent=2) + "\n"
            )
            try:
                yield
            finally:
                reporter.log = None  # what comes after this run is not of its log

    def write_plan(self, plan: Plan) -> None:
        """Writes plan.json.

        Args:
            plan: the plan
        """
        atomic_files.write_text(self.path / "plan.json", plan.to_json())

    def place(self, runner: Runner, names: Sequence[str]) -> None:
        """Copies the files of artefacts into the folder: what is written over there changes no other run's.

        Args:
            runner: made the artefacts
            names: of the artefacts; those that were not made are passed over
        """
        for name in names:
            kept = runner.folder(name)
            if kept is None:
                continue
            for file in _NETWORKS[name]:
                if name == "format_files" and not (kept / file).is_file():
                    continue  # a format that the recipe does not ask for, or that can't hold the network
                atomic_files.write(self.path / file, partial(shutil.copyfile, kept / file))

    def close(self, report: Report, runner: Runner, name: str, passed: bool) -> None:
        """Puts what may stay into place, the report last: a folder with a report.json is complete.

        Args:
            report: of the run
            runner: made the artefacts
            name: of the network, for the page's title
            passed: whether the gate passed: without, the slim network stays out
        """
        self.place(runner, tuple(_NETWORKS) if passed else ("dense", "dense_onnx"))
        for name_of_network, file in _TRAININGS.items():
            kept = runner.folder(name_of_network)
            if kept is not None and (kept / file).is_file():
                atomic_files.write(self.path / file, partial(shutil.copyfile, kept / file))
        members = json.dumps(runner.value("members").to_data(), separators=(",", ":"))
        atomic_files.write_text(self.path / "groups.json", members + "\n")
        write_page(report, self.path, name)
        atomic_files.write_text(self.path / "report.json", json.dumps(report.to_data(), indent=2) + "\n")
        runner.reporter.event("finished", passed=passed)

    def _can_be_made(self) -> None:
        folder = existing = self.path
        try:
            while not existing.exists():
                existing = existing.parent
            is_folder = existing.is_dir()
        except (OSError, ValueError) as error:
            shown = repr(str(folder))[:200]
            raise RecipeError(f"the output folder can't be {shown} ({error}): give another by --out") from error
        if not is_folder:
            raise RecipeError(
                f"the output folder {folder} can't be made, as {existing} is a file: give another by --out"
            )
        if not os.access(existing, os.W_OK):
            raise RecipeError(
                f"the output folder {folder} can't be written ({existing} is read-only): give another by --out"
            )

    def _finished(self) -> Report:
        try:
            report = read_record(self.path / "report.json", Report)
        except StoreError as error:
            raise RecipeError(f"{error}: give another folder by --out") from error
        if not report.gate.passed:
            raise GateError(f"the run in {self.path} ended with a failed gate: see its report.json")
        return report
