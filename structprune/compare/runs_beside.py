"""Finished runs side by side: `structprune compare A B …`. Nothing is run or measured; the runs' files are read."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..fronts import front_of
from ..report.page_data import quality_stages
from ..report.verdict import verdict_of
from .finished_runs import FinishedRun, read_runs
from .plan_difference import GroupDifference, difference_of
from .ranking import has_same_dense, rank_quality, rank_speed, verdict_on
from .run_records import (
    SCHEMA,
    ComparedRun,
    Fronts,
    LayerWidths,
    Ranking,
    RecipeKey,
    RunComparison,
    StageMetric,
)

MANY = 8  # networks, over which no command times them in turns
UNSTEADY = 1.1  # times as long, from which on a page says that the machine was at another pace


def compare_runs(folders: Sequence[Path], out: Path) -> RunComparison:
    """Holds finished runs side by side.

    Args:
        folders: Those of two runs or more.
        out: The folder that the record is to go into.

    Returns:
        The record.

    Raises:
        RecipeError: There are fewer than two runs, one comes twice, or one is not a finished run.
        StoreError: A report is damaged.
        PlanError: A plan is.
    """
    finished = read_runs(folders)
    runs = [_run(entry, out) for entry in finished]
    recipes = [entry.recipe for entry in finished]
    speed, quality = rank_speed(runs), rank_quality(runs, recipes)
    return RunComparison(
        schema=SCHEMA,
        verdict=verdict_on(runs, speed, quality),
        notes=_notes(runs, recipes, speed, quality),
        bench=_bench(finished, runs),
        runs=runs,
        speed=speed,
        quality=quality,
        fronts=_fronts(runs, speed, quality),
        widths=_widths(finished) if has_same_dense(runs) else [],
        recipe=differing_keys(recipes),
    )


def differing_keys(recipes: Sequence[dict[str, Any]]) -> list[RecipeKey]:
    """The keys of recipes that differ.

    Args:
        recipes: By dotted keys; an empty one is of a run without its recipe.

    Returns:
        Each key with its value in each recipe.
    """
    known = [recipe for recipe in recipes if recipe]
    keys = dict.fromkeys(key for recipe in known for key in recipe)
    differing = [key for key in keys if any(recipe.get(key) != known[0].get(key) for recipe in known)]
    return [RecipeKey(key=key, values=[recipe.get(key) for recipe in recipes]) for key in differing]


def _run(entry: FinishedRun, out: Path) -> ComparedRun:
    report, ended = entry.report, entry.facts.ended
    verdict = report.verdict or verdict_of(report)
    stages = [
        StageMetric(stage=stage.words, value=stage.value if math.isfinite(stage.value) else None, ci95=stage.interval)
        for stage in quality_stages(report)
    ]
    return ComparedRun(
        name=entry.name,
        folder=Path(os.path.relpath(entry.folder, out)).as_posix(),
        model=report.model.name,
        criterion=report.criterion,
        allocation=report.allocation,
        budget=report.budget,
        state=verdict.state,
        verdict=verdict.text,
        gate_passed=report.gate.passed,
        metric=report.quality.metric,
        higher_is_better=report.quality.higher_is_better,
        images=report.quality.images,
        quality=stages,
        macs=report.macs,
        params=report.params,
        onnx_bytes=report.onnx.slim_bytes,
        latency=report.latency,
        measured=None if ended is None else datetime.fromtimestamp(ended, timezone.utc).isoformat(timespec="seconds"),
        environment=report.environment,
        is_trained=bool(report.epochs.dense or report.epochs.throughout()),
        random_weights=bool(report.quality.random_weights),
    )


def _bench(finished: Sequence[FinishedRun], runs: Sequence[ComparedRun]) -> str:
    files = [entry.folder / "slim.onnx" for entry in finished]
    if len(files) > MANY or not all(path.is_file() for path in files):
        return ""
    return shlex.join(["structprune", "bench", *(f"{run.folder}/slim.onnx" for run in runs)])


def _fronts(runs: Sequence[ComparedRun], speed: Ranking, quality: Ranking) -> Fronts:
    if quality.best is None:
        return Fronts(macs=[], speed=[])
    sign = 1.0 if runs[0].higher_is_better else -1.0
    qualities = {run.name: sign * run.final.value for run in runs if run.final.value is not None}
    times = {}
    for run in runs if speed.best is not None else ():
        assert run.latency is not None
        times[run.name] = run.latency.slim_ms if speed.measure == "ms" else 1 / run.latency.speedup
    return Fronts(
        macs=front_of((run.macs.slim, qualities[run.name], run.name) for run in runs),
        speed=front_of((time, qualities[name], name) for name, time in times.items()),
    )


def _widths(runs: Sequence[FinishedRun]) -> list[LayerWidths]:
    """Each group of any run, by the channels that each report has of it and the units that each plan keeps."""
    known = [{group.name: group for group in run.report.groups} for run in runs]
    plans = [run.plan for run in runs]
    first = plans[0]
    differences: list[dict[str, GroupDifference]] = [
        {} if first is None or plan is None else {group.name: group for group in difference_of(first, plan).groups}
        for plan in plans
    ]
    widths = []
    for name in dict.fromkeys(name for groups in known for name in groups):
        sizes = {groups[name].channels for groups in known if name in groups}
        kept = [groups[name].kept_channels if name in groups else None for groups in known]
        beside = [difference.get(name) for difference in differences]
        is_same = all(group is not None and group.same for group in beside)
        shared = [None if group is None else group.shared for group in beside]
        channels = sizes.pop() if len(sizes) == 1 else None
        widths.append(LayerWidths(name=name, channels=channels, kept=kept, shared=shared, same=is_same))
    return widths


def _pace(runs: Sequence[ComparedRun]) -> str:
    """How differently the same dense network was timed in the runs, where that is more than a tenth."""
    times = [run.latency.dense_ms for run in runs if run.latency is not None]
    if not has_same_dense(runs) or max(times) < UNSTEADY * min(times):
        return ""
    return f" (the same dense network took {min(times):.3g} to {max(times):.3g} ms in them)"


def _notes(
    runs: Sequence[ComparedRun], recipes: Sequence[dict[str, Any]], speed: Ranking, quality: Ranking
) -> list[str]:
    notes = []
    if speed.best is not None:
        notes.append(
            "speeds are of separate runs, each beside its own dense network: what the machine did between the runs is "
            f"in no interval{_pace(runs)}"
        )
    if speed.measure == "ms":
        notes.append("the dense networks, runtimes or data types differ: milliseconds are compared, and not speedups")
    if not has_same_dense(runs):
        networks = list(dict.fromkeys(f"{run.model} ({run.macs.dense:,} MACs)" for run in runs))
        notes.append(f"different networks, whose widths do not compare: {', '.join(networks)}")
        if quality.measure == "agreement":
            notes.append(
                "each network is compared with its own dense one, so that equal agreement is not equal quality"
            )
    seeds = {recipe.get("seed") for recipe in recipes if recipe}
    if len(seeds) > 1:
        notes.append(
            "the seeds differ: training differs by chance, and where data is split by seed other samples are held out"
        )
    elif any(run.is_trained for run in runs):
        notes.append(
            "one run each: intervals say how sure each measurement is, and not how much training varies by its seed; "
            "structprune sweep repeats recipes over seeds"
        )
    if missing := [run.name for run, recipe in zip(runs, recipes, strict=True) if not recipe]:
        notes.append(f"no recipe.yaml in {', '.join(missing)}: its keys are not compared")
    return notes
