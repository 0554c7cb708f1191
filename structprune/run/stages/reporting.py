"""The report, of all that was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...data import Data
from ...export import opset_of
from ...graph import DependencyGraph
from ...judge import Judge, Quality
from ...records import Plan
from ...report import build_report, quality_record, verdict_of
from ...runtimes import Benchmark, environment
from ..bounds import bounds_record
from ..search import Search
from ..stage import Work, stage


@stage(
    "report",
    after="timing",
    needs=(
        *("graph", "plan", "data", "quality.*", "gates.*", "dense_onnx", "slim_onnx"),
        *("recovery?", "latency?", "layers?", "int8?", "also?", "search?", "chooser?", "validation?"),
    ),
    makes=("report",),
    spec=lambda recipe: recipe,
)
def report(
    work: Work,
    graph: DependencyGraph,
    plan: Plan,
    data: Data,
    quality: dict[str, Quality],
    gates: dict[str, Any],
    dense_onnx: Path,
    slim_onnx: Path,
    recovery: list[dict[str, Any]] | None,
    latency: Benchmark | None,
    layers: dict[str, dict[str, float]] | None,
    int8: dict[str, dict[str, Any]] | None,
    also: list[dict[str, Any]] | None,
    search: Search | None,
    chooser: Judge | None,
    validation: Quality | None,
) -> dict[str, Any]:
    recipe, counts = work.spec, gates["macs"]
    made = build_report(
        recipe,
        graph,
        plan,
        {name: gate for name, gate in gates.items() if name != "macs"},
        quality_record(quality, not recipe.model.trained),
        {"dense": counts.dense, "slim": counts.slim},
        {"dense": dense_onnx.stat().st_size, "slim": slim_onnx.stat().st_size},
        recovery or [],
        latency,
        layers,
        int8 or {},
        also or [],
        environment(),
        opset_of(slim_onnx),
    )
    made["data"] = {"notes": list(data.notes), "skipped": data.skipped}
    if search is not None and chooser is not None and validation is not None:
        bounds, held_out = recipe.prune.budget.bounds, (quality["dense"], quality["final"])
        made["budget"] = search.asked
        made["search"] = search.to_dict() | {
            "budget": plan.budget,
            "bounds": bounds_record(bounds, (chooser.dense, validation), held_out),
        }
    if not counts.passed:
        made["gate"]["passed"] = False
    return {"schema": made.pop("schema"), "verdict": verdict_of(made).to_dict(), **made}
