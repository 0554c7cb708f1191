"""A sweep of the smallest recipe, whose runs are made in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from structprune.errors import StructPruneError
from structprune.progress import Reporter
from structprune.run import run_recipe
from structprune.sweep import Ending, Job
from tests.run.small_network import RECIPE, short_turns

BASE = {
    **RECIPE,
    "train": {**RECIPE["train"], "epochs": 1},
    "finetune": None,
    "bench": {"seconds": 0.02},
}


def in_this_process(jobs: Sequence[Job]) -> Iterator[tuple[Job, Ending]]:
    """Makes runs one after another, as their commands do."""
    for job in jobs:
        try:
            with short_turns():
                resume = (job.folder / "recipe.yaml").is_file()
                run_recipe(job.recipe, job.folder, resume=resume, reporter=quiet())
            yield job, Ending(0, 1.0)
        except StructPruneError as error:
            job.log.write_text(f"› at work\nerror: {error}\n")
            yield job, Ending(error.exit_code, 1.0)


def quiet() -> Reporter:
    return Reporter(Console(file=StringIO(), width=500))


def text_of(reporter: Reporter) -> str:
    return reporter.console.file.getvalue()


def write_sweep(folder: Path, data: dict[str, Any], base: dict[str, Any] = BASE) -> Path:
    """A sweep's file, and beside it the recipe that it names `base.yaml`."""
    folder.mkdir(exist_ok=True)
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({"recipe": "base.yaml", **data}, sort_keys=False))
    return path
