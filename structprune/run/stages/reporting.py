"""The report, of all that was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...data import Data
from ...graph import DependencyGraph
from ...quality_judge import Judge, Quality
from ...records import Plan, Scores
from ...report import Measurements, Report, build_report, records
from ...report.exported_files import ExportedFormat
from ...report.group_details import RunGroups, describe_members
from ...report.training_records import Epoch
from ...runtimes import Benchmark
from ...runtimes.other_runtimes import OtherRuntime
from ..quality_bounds import bounds_record
from ..quality_search import Search
from ..stage import Work, stage


@stage(
    "report",
    after="timing",
    needs=(
        *("dense_graph", "plan", "data", "quality.*", "rounds.*", "epochs.*", "gates.*", "dense_onnx", "slim_onnx"),
        *("recovery?", "latency?", "layers?", "int8?", "also?", "search?", "chooser?", "validation?", "formats?"),
    ),
    makes=("report",),
    spec=lambda recipe: recipe,
)
def report(
    work: Work,
    dense_graph: DependencyGraph,
    plan: Plan,
    data: Data,
    quality: dict[str, Quality],
    rounds: dict[str, Any],
    epochs: dict[str, list[Epoch]],
    gates: dict[str, Any],
    dense_onnx: Path,
    slim_onnx: Path,
    recovery: list[records.RecoveryStep] | None,
    latency: Benchmark | None,
    layers: dict[str, dict[str, float]] | None,
    int8: dict[str, records.Quantised] | None,
    also: list[OtherRuntime] | None,
    search: Search | None,
    chooser: Judge | None,
    validation: Quality | None,
    formats: list[ExportedFormat] | None,
) -> Report:
    """The record of the run."""
    searched = None
    if search is not None and chooser is not None and validation is not None:
        bounds = bounds_record(
            work.spec.prune.budget.bounds, (chooser.dense, validation), (quality["dense"], quality["final"])
        )
        searched = records.Search(**vars(search), budget=records.Budget.model_validate(plan.budget), bounds=bounds)
    measured = Measurements(
        quality=quality,
        gates={name: gate for name, gate in gates.items() if name != "macs"},
        macs=gates["macs"],
        onnx={"dense": dense_onnx, "slim": slim_onnx},
        data=records.Data(notes=list(data.notes), skipped=data.skipped),
        recovery=recovery or (),
        latency=latency,
        layers=layers,
        int8=int8 or {},
        also=also or (),
        search=searched,
        rounds=rounds,
        epochs=epochs,
        formats=formats or (),
    )
    return build_report(work.spec, dense_graph, plan, measured)


@stage(
    "members",
    after="report",
    needs=("dense_graph", "scores", "cut_plan"),
    makes=("members",),
    spec=lambda recipe: recipe.prune.schedule,
)
def describe_groups(work: Work, dense_graph: DependencyGraph, scores: Scores, cut_plan: Plan) -> RunGroups:
    """Who makes and reads each group, and the scores by which the last cut was made, for the page."""
    return describe_members(dense_graph, scores, cut_plan, rounds=work.spec.rounds if work.spec else 1)
