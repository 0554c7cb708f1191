"""structprune's part of a comparison: the network that all start from, and a run of the recipe."""

from __future__ import annotations

import json
import time
from pathlib import Path

from safetensors.torch import save_file

from ..graph import DependencyGraph
from ..json_records import JsonRecord, read_record
from ..progress import Reporter
from ..recipe import Recipe
from ..records import Scores
from ..report import Report
from ..run import RunFolder, run, runner_of
from ..store import atomic_files
from .peak_memory import PeakMemory
from .records import Planning
from .rows import OURS


def with_trained_network(recipe: Recipe, folder: Path, reporter: Reporter) -> Recipe:
    """The recipe with a trained network to start from, if it trains one itself: all tools get the same."""
    if recipe.train is None:
        return recipe
    weights = folder / "dense" / "weights.safetensors"
    if not weights.is_file():
        model = runner_of(recipe, reporter, RunFolder(folder / OURS).store).value("dense")
        state = {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
        atomic_files.write(weights, lambda path: save_file(state, path))
    model_spec = recipe.model.model_copy(update={"weights": str(weights.resolve())})
    return recipe.model_copy(update={"train": None, "model": model_spec})


def run_ours(recipe: Recipe, place: Path, reporter: Reporter) -> tuple[Report, Planning]:
    """The report of the run into `place`; and how long it took to plan, and with how much memory."""
    noted = place / "planning.json"
    reporter.stage(f"{place.name}: budget {recipe.prune.budget.as_dict()}")
    if not noted.is_file():
        resumed = (place / "recipe.yaml").is_file()
        start = time.perf_counter()
        with PeakMemory() as peak:
            run(recipe, place, plan_only=True, resume=resumed, reporter=reporter)
        seconds = None if resumed else time.perf_counter() - start
        write_record(noted, Planning(seconds=seconds, peak_bytes=peak.bytes))
    report = run(recipe, place, resume=True, reporter=reporter)
    return Report.model_validate(report), read_record(noted, Planning)


def graph_and_scores(recipe: Recipe, place: Path, reporter: Reporter) -> tuple[DependencyGraph, Scores]:
    """The dense network's graph and scores of the run in `place`, by which importance kept is reckoned for all."""
    runner = runner_of(recipe, reporter, RunFolder(place).store)
    return runner.value("graph"), runner.value("first_scores")


def write_record(path: Path, record: JsonRecord) -> None:
    """Writes what a comparison that is resumed goes on from."""
    atomic_files.write_text(path, json.dumps(record.to_data()))
