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
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from ..cost import check_may_time, wants_latency
from ..criteria import criterion_of
from ..errors import RecipeError, StoreError, StructPruneError
from ..graph import DependencyGraph
from ..graph.tracing import OUTPUT
from ..json_records import JsonRecord, read_record
from ..models import build_model
from ..plan import allocation_of
from ..progress import Reporter
from ..recipe import Recipe, check_recipe, read_recipe, read_yaml
from ..records import Scores
from ..report import Report
from ..run import RunFolder, held, rehearse, run, runner_of
from ..runtimes import ENGINES, Benchmark, Runtime, benchmark, environment
from ..store import atomic_files
from .importance import share_kept, stored_indices
from .peak_memory import PeakMemory
from .peer import Settings
from .peer_process import Task
from .records import (
    SCHEMA,
    Asked,
    Comparison,
    CutRow,
    Dense,
    FailedRow,
    PeerFailure,
    PeerOutcome,
    Planning,
    Row,
)
from .rows import OURS, THEIRS, our_row, their_row, timed_row

AS_FAST = f"{OURS}-as-fast"
# The allocation of a speed where the recipe's own does not weigh what a width loses against what it costs: of
# those that do, the one that needs no scan, for which a recipe may lack images.
FOR_SPEED = "knapsack"
ROUNDINGS = (1, 8, 16)
_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    **dict.fromkeys(("l1", "group_l1"), ("GroupMagnitudeImportance", {"p": 1})),
    **dict.fromkeys(("l2", "group_l2"), ("GroupMagnitudeImportance", {"p": 2})),
    "fpgm": ("FPGMImportance", {}),
    "slimming": ("BNScaleImportance", {}),
    "random": ("RandomImportance", {}),
}
_IS_GLOBAL = {"uniform": False, "global": True, "threshold": True}  # allocations that torch-pruning has, as it has them


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
        RecipeError: Torch-pruning is not installed, or the recipe asks for what can't be compared.
    """
    reporter = reporter or Reporter()
    checked = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides, reporter.stage)
    name = Path(recipe).stem if isinstance(recipe, (str, Path)) else "run"
    if find_spec("torch_pruning") is None:
        raise RecipeError("compare needs torch-pruning: pip install 'structprune[compare]'")
    _check_comparable(checked)
    folder = Path(out) if out is not None else Path("runs") / f"{name}-compare"
    if as_fast:
        # what can't be asked for is said before any work
        check_may_time(_with_speedup(checked, 1.0).prune.budget.as_dict())
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
    if checked.finetune and (checked.finetune.restarts or checked.finetune.equal != "epochs"):
        raise RecipeError(
            "compare fine-tunes what each tool has cut, for equally many epochs: leave out finetune.start and .equal"
        )


def _compare(
    checked: Recipe, folder: Path, roundings: Sequence[int], timeout: float, as_fast: bool, reporter: Reporter
) -> dict[str, Any]:
    atomic_files.clear(folder)
    atomic_files.write_text(folder / "recipe.yaml", yaml.safe_dump(checked.model_dump(mode="json"), sort_keys=False))
    started = _dense(checked, folder, reporter)
    report, tool = _ours(started, folder / OURS, reporter)
    graph, scores = _scored(started, folder / OURS, reporter)
    rows: list[CutRow | FailedRow] = [our_row(folder / OURS, report, tool, graph, scores)]
    settings, notes = _settings(started)
    settings = dataclasses.replace(settings, ignored=[*settings.ignored, *_outputs(graph)])
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
        extra, note = _as_fast(started, max(rows[1:], key=lambda row: row.align or 0), graph, scores, folder, reporter)
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
        dense=Dense(macs=report.macs.dense, quality=report.quality.dense),
        rows=_timed_rows(rows, started, folder, reporter),
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


def _dense(recipe: Recipe, folder: Path, reporter: Reporter) -> Recipe:
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


def _ours(recipe: Recipe, place: Path, reporter: Reporter) -> tuple[Report, Planning]:
    """The report of the run into `place`; and how long it took to plan, and with how much memory."""
    noted = place / "planning.json"
    reporter.stage(f"{place.name}: budget {recipe.prune.budget.as_dict()}")
    if not noted.is_file():
        resumed = (place / "recipe.yaml").is_file()
        start = time.perf_counter()
        with PeakMemory() as peak:
            run(recipe, place, plan_only=True, resume=resumed, reporter=reporter)
        seconds = None if resumed else time.perf_counter() - start
        _write(noted, Planning(seconds=seconds, peak_bytes=peak.bytes))
    report = run(recipe, place, resume=True, reporter=reporter)
    return Report.model_validate(report), read_record(noted, Planning)


def _write(path: Path, record: JsonRecord) -> None:
    atomic_files.write_text(path, json.dumps(record.to_data()))


def _scored(recipe: Recipe, place: Path, reporter: Reporter) -> tuple[DependencyGraph, Scores]:
    """The dense network's graph and scores of the run in `place`, by which importance kept is reckoned for all."""
    runner = runner_of(recipe, reporter, RunFolder(place).store)
    return runner.value("graph"), runner.value("first_scores")


def _as_fast(
    recipe: Recipe, peer: CutRow | FailedRow, graph: DependencyGraph, scores: Scores, folder: Path, reporter: Reporter
) -> tuple[CutRow | FailedRow | None, str]:
    """structprune's row at the speed that torch-pruning's network `peer` is measured to have, and a note on it.

    No row where there is no such speed to ask for.
    """
    name, place = peer.network, folder / AS_FAST
    if isinstance(peer, FailedRow):
        return None, f"no {AS_FAST}: {name} failed"
    stored = place / "asked.json"
    if not stored.is_file():
        timed = _timed([name], recipe, folder, reporter)
        _write(stored, Asked(speedup=round(timed.speedup[name], 3), ci95=timed.ci95[name], of=name))
    goal = read_record(stored, Asked)
    speedup, (low, high) = goal.speedup, goal.ci95
    measured = f"{name} was measured to be {speedup:.2f}× as fast as dense (95 %: {low:.2f}-{high:.2f})"
    if speedup <= 1:
        return None, f"no {AS_FAST}: {measured}: a speed that a budget can't ask for"
    faster = _with_speedup(recipe, speedup)
    note = (
        f"{AS_FAST}: the recipe with budget speedup={speedup:g} alone and allocation {faster.prune.allocation}, as "
        f"{measured}; its seconds are with timing what it planned, without learning what widths cost"
    )
    try:
        rehearse(faster, reporter)
        return our_row(place, *_ours(faster, place, reporter), graph, scores, goal), note
    except StructPruneError as error:  # beside what the others did it is a result, as theirs are
        return FailedRow(network=AS_FAST, tool=OURS, error=str(error), asked=goal), note


def _with_speedup(recipe: Recipe, speedup: float) -> Recipe:
    """The recipe with this budget alone, shared by what widths cost. Raises RecipeError where that can't be."""
    allocation = recipe.prune.allocation if allocation_of(recipe.prune.allocation).for_speed else FOR_SPEED
    prune = {**recipe.prune.model_dump(mode="json"), "budget": {"speedup": speedup}, "allocation": allocation}
    return check_recipe({**recipe.model_dump(mode="json"), "prune": prune}, "as_fast", tell=lambda line: None)


def _outputs(graph: DependencyGraph) -> list[str]:
    """The layers that make the network's outputs: torch-pruning must be told, or it narrows them."""
    return [path for path, reason in graph.whole_layers.items() if reason == OUTPUT]


def _settings(recipe: Recipe) -> tuple[Settings, list[str]]:
    """How torch-pruning does what the recipe asks, and where it can't."""
    spec, notes = recipe.prune, [f"{THEIRS} is cut to {OURS}'s MACs, by the pruning ratio that comes nearest"]
    if spec.criterion not in _SETTINGS:
        notes.append(f"{THEIRS} has no {spec.criterion}: its group L1 instead")
    if spec.allocation not in _IS_GLOBAL:
        notes.append(f"{THEIRS} has no allocation {spec.allocation}: the same ratio in every layer")
    if wants_latency(spec.budget.as_dict()):
        notes.append(
            f"{OURS}'s seconds are without learning what widths cost, which was done before, and is kept on disk"
        )
    if recipe.recover:
        notes.append(f"{THEIRS} has no recovery: its quality is as cut" + (", then fine-tuned" * bool(recipe.finetune)))
    importance, arguments = _SETTINGS.get(spec.criterion, _SETTINGS["l1"])
    modules = [path for path, _ in build_model(recipe.model, recipe.seed, lambda line: None).named_modules()]
    ignored = [path for path in modules if any(fnmatch(path, glob) for glob in spec.ignore)]
    return Settings(importance, arguments, _IS_GLOBAL.get(spec.allocation, False), ignored, spec.max_ratio), notes


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


def _timed(networks: Sequence[str], recipe: Recipe, folder: Path, reporter: Reporter) -> Benchmark:
    """The dense network and these in turns, in one run, on the recipe's runtime."""
    runtime = recipe.runtime.runtime()
    paths = {"dense": folder / OURS / "dense.onnx"} | {name: folder / name / "slim.onnx" for name in networks}
    converted = {name: _converted(path, runtime) for name, path in paths.items()}
    reporter.stage(f"timing {', '.join(converted)}, {recipe.bench.seconds:g} s")
    with reporter.bar("timing") as update:
        return benchmark(
            converted, runtime=runtime, seconds=recipe.bench.seconds, pin=recipe.bench.pin, progress=update
        )


def _converted(path: Path, runtime: Runtime) -> Path:
    """The file as the runtime runs it; in int8 a run of the recipe has one already, calibrated on images."""
    own = path.with_name(f"{path.stem}-int8.onnx")
    return own if runtime.dtype == "int8" and own.is_file() else runtime.converted(path)


def _timed_rows(
    rows: Sequence[CutRow | FailedRow], recipe: Recipe, folder: Path, reporter: Reporter
) -> list[Row | FailedRow]:
    timed = _timed([row.network for row in rows if isinstance(row, CutRow)], recipe, folder, reporter)
    return [timed_row(row, timed) if isinstance(row, CutRow) else row for row in rows]
