"""`compare`: one recipe and dense network, by structprune and by torch-pruning; all that comes out measured alike.

torch-pruning takes no budget: it is cut to as many MACs as structprune's network has, with widths as they fall and
rounded. It has no recovery, and fine-tuning is the recipe's for all. The other way round, structprune can be asked to
be as fast as torch-pruning's network was measured to be.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..cost import check_may_time
from ..criteria import criterion_of
from ..errors import RecipeError, StoreError
from ..extras import need
from ..json_records import read_record
from ..launch import refuse_several
from ..progress import Reporter
from ..recipe import Recipe, read_recipe, read_yaml
from ..run import held, rehearse
from ..runtimes import ENGINES, environment
from ..store import atomic_files
from .as_fast import row_as_fast, with_speedup
from .importance import share_kept, stored_indices
from .network_widths import widths_of
from .our_run import graph_and_scores, run_ours, with_trained_network
from .peer import Settings
from .peer_process import Task
from .peer_settings import output_layers, settings_of
from .records import (
    SCHEMA,
    Comparison,
    CutRow,
    Dense,
    FailedRow,
    PeerFailure,
    PeerOutcome,
)
from .rows import OURS, THEIRS, our_row, their_row
from .timing import timed_rows

ROUNDINGS = (1, 8, 16)


def compare(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    roundings: Sequence[int] = ROUNDINGS,
    timeout: float = 900.0,
    resume: bool = False,
    as_fast: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Runs a recipe, and torch-pruning beside it, each with the same data, training and timing.

    Each run of torch-pruning has a process of its own; what it raises stands in its row.

    Args:
        recipe: A path, or what `read_recipe` gives.
        out: The folder, by default runs/NAME-compare. It gets compare.json and all networks' files.
        overrides: Strings `a.b=value` for the recipe.
        roundings: Torch-pruning runs once for each, with widths that are multiples of it.
        timeout: Seconds after which a process of torch-pruning is ended.
        resume: Whether an interrupted comparison goes on. A finished one may get `as_fast`: all are timed anew then.
        as_fast: Whether structprune also runs with one budget: the speed that torch-pruning's network of the greatest
            rounding was measured to have.
        reporter: Shows progress, by default on standard error.

    Returns:
        What compare.json holds.

    Raises:
        StructPruneError: The recipe can't be run or compared, or the folder is in use; before any work.
        RecipeError: Torch-pruning or matplotlib is not installed, or the recipe asks for what can't be compared.
    """
    refuse_several("a comparison")
    reporter = reporter or Reporter()
    checked = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides, reporter.stage)
    name = Path(recipe).stem if isinstance(recipe, (str, Path)) else "run"
    need("compare", "compare")
    _check_comparable(checked)
    folder = Path(out) if out is not None else Path("runs") / f"{name}-compare"
    if as_fast:
        # what can't be asked for is said before any work
        check_may_time(with_speedup(checked, 1.0).prune.budget.as_dict())
    if not _claim(folder, checked, roundings, resume, as_fast):
        return _finished(folder).to_data()

    reporter.stage(f"{checked.model.name}: rehearsing the recipe")
    rehearse(checked, reporter)
    with held(folder):
        _claim(folder, checked, roundings, resume, as_fast)  # anew, now that nobody else can change it
        return _compare(checked, folder, roundings, timeout, as_fast, reporter)


def _check_comparable(checked: Recipe) -> None:
    """Raises RecipeError for a recipe that torch-pruning can't be run beside."""
    if not checked.runtime.runtime().files:
        engines = " or ".join(name for name, engine in ENGINES.items() if engine.files)
        raise RecipeError(
            f"compare times ONNX files, and {checked.runtime.engine} runs modules: set runtime.engine to {engines}"
        )
    if bounds := checked.prune.budget.bounds:
        raise RecipeError(
            f"compare cuts all networks to the same cost, and {', '.join(bounds)} bounds quality: give macs or a "
            "speedup, for instance what a run with this bound came to"
        )
    if checked.prune.rotate:
        raise RecipeError("compare counts what each tool keeps of the same channels: leave prune.rotate out")
    if checked.prune.schedule is not None:
        raise RecipeError("compare cuts each network at once: leave prune.schedule out")
    if checked.finetune and (checked.finetune.restarts or checked.finetune.equal != "epochs"):
        raise RecipeError(
            "compare fine-tunes what each tool has cut, for equally many epochs: leave out finetune.start and .equal"
        )


def _compare(
    checked: Recipe, folder: Path, roundings: Sequence[int], timeout: float, as_fast: bool, reporter: Reporter
) -> dict[str, Any]:
    atomic_files.clear(folder)
    atomic_files.write_text(folder / "recipe.yaml", yaml.safe_dump(checked.model_dump(mode="json"), sort_keys=False))
    started = with_trained_network(checked, folder, reporter)
    report, tool = run_ours(started, folder / OURS, reporter)
    graph, scores = graph_and_scores(started, folder / OURS, reporter)
    rows: list[CutRow | FailedRow] = [our_row(folder / OURS, report, tool, graph, scores)]
    settings, notes = settings_of(started)
    settings = dataclasses.replace(settings, ignored=[*settings.ignored, *output_layers(graph)])
    for align in roundings:
        row = _theirs(started, report.macs.slim, align, settings, folder, timeout, reporter)
        if isinstance(row, CutRow) and row.gate.max_rel is not None:
            kept = share_kept(graph, scores, stored_indices(folder / row.network / "kept.safetensors"))
            # where a statistic is taken over channels, zeros count in it: a difference tells nothing
            is_unclear = not row.gate.passed and any(not group.exact for group in graph.groups)
            gate = row.gate.model_copy(update={"unclear": is_unclear})
            row = row.model_copy(update={"kept_importance": kept, "gate": gate})
        rows.append(row)
    if scores.criterion != (name := criterion_of(started.prune.criterion).name):
        notes.append(f"{name} has no scores of the dense network: importance kept is by l1")
    if as_fast:
        extra, note = row_as_fast(
            started, max(rows[1:], key=lambda row: row.align or 0), graph, scores, folder, reporter
        )
        rows += [extra] if extra else []
        notes.append(note)
    result = Comparison(
        schema=SCHEMA,
        model=started.model.name,
        criterion=report.criterion,
        allocation=report.allocation,
        budget=report.budget,
        as_fast=as_fast,
        kept_by=scores.criterion,
        runtime=started.runtime.runtime().name,
        metric=report.quality.metric,
        images=report.quality.images,
        higher_is_better=report.quality.higher_is_better,
        dense=Dense(macs=report.macs.dense, quality=report.quality.dense),
        rows=timed_rows(rows, started, folder, reporter),
        widths=widths_of(graph, rows, folder),
        notes=notes,
        environment=environment(),
    )
    data = result.to_data()
    atomic_files.write_text(folder / "compare.json", json.dumps(data, indent=1) + "\n")
    return data


# --- stages --------------------------------------------------------------------------------------------------


def _claim(folder: Path, recipe: Recipe, roundings: Sequence[int], resume: bool, as_fast: bool) -> bool:
    """Whether there is work to do in `folder`; raises RecipeError where it can't take this comparison."""
    if not roundings or min(roundings) < 1:
        raise RecipeError(f"roundings {list(roundings)}: give whole numbers of at least 1")
    stored = folder / "recipe.yaml"
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"the output folder {folder} is a file: give another by --out")
    if not stored.is_file():
        if resume:
            raise RecipeError(
                f"{folder} holds no comparison to resume: leave --resume out, or give its folder by --out"
            )
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise RecipeError(f"{folder} is not empty: give another --out")
        return True
    if not resume:
        raise RecipeError(f"{folder} already holds a comparison: give another --out, or --resume to go on")
    if read_yaml(stored) != recipe.model_dump(mode="json"):
        raise RecipeError(f"{folder} holds a comparison by another recipe: resume it with the same one and --set")
    finished = folder / "compare.json"
    if not finished.is_file():
        return True
    return as_fast and not _finished(folder).as_fast


def _finished(folder: Path) -> Comparison:
    """The comparison that a folder holds. Raises RecipeError where its file is broken."""
    try:
        return read_record(folder / "compare.json", Comparison)
    except StoreError as error:
        raise RecipeError(f"{error}: give another folder by --out") from error


def _theirs(
    recipe: Recipe, macs: int, align: int, settings: Settings, folder: Path, timeout: float, reporter: Reporter
) -> CutRow | FailedRow:
    network = THEIRS if align == 1 else f"{THEIRS}-{align}"

    def failed(error: str) -> FailedRow:
        return FailedRow(network=network, tool=THEIRS, align=align, error=error)

    task = Task(recipe, macs, align, settings, str(folder / network))
    result = folder / network / "result.json"
    if not result.is_file():
        reporter.stage(f"{THEIRS}" + (f", rounded to {align}" if align > 1 else ""))
        command = [sys.executable, "-m", "structprune.compare.peer_process", str(task.write())]
        with (folder / network / "log.txt").open("w") as log:
            try:
                ended = subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=timeout)
            except subprocess.TimeoutExpired:
                return failed(f"no result in {timeout:g} s")
        if not result.is_file():
            return failed(f"its process ended with {_ending(ended.returncode)}")
    outcome = read_record(result, PeerOutcome).root
    if isinstance(outcome, PeerFailure):
        return FailedRow.model_validate({"network": network, "tool": THEIRS, **outcome.to_data()})
    return their_row(network, outcome)


def _ending(code: int) -> str:
    return f"signal {-code}" + (" (out of memory?)" if code == -9 else "") if code < 0 else f"exit code {code}"
