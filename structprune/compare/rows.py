"""The rows of a comparison, made of what each tool left in its folder and of the times of its network."""

from __future__ import annotations

from pathlib import Path

from ..graph import DependencyGraph
from ..records import Plan, Scores
from ..report import Report
from ..runtimes import Benchmark
from .importance import planned_indices, share_kept
from .records import Asked, CutRow, PeerResult, Planning, Row, RowGate, RowQuality

OURS, THEIRS = "structprune", "torch-pruning"
SAME = 1e-9  # the relative difference, in float64, from which a network is not the masked dense one


def our_row(
    place: Path,
    report: Report,
    planning: Planning,
    graph: DependencyGraph,
    scores: Scores,
    goal: Asked | None = None,
) -> CutRow:
    """The row of the run in `place`, where its network was asked to be as fast as `goal`."""
    row = CutRow(
        network=place.name,
        tool=OURS,
        macs=report.macs.slim,
        cut=report.macs.cut,
        params=report.params.slim,
        gate=RowGate(passed=report.gate.passed, max_rel=report.gate.float64.max_rel),
        quality=RowQuality.model_validate(report.quality.to_data()),
        kept_importance=share_kept(graph, scores, planned_indices(Plan.read(place / "plan.json").keep)),
        seconds=planning.seconds,
        peak_bytes=planning.peak_bytes,
    )
    return row if goal is None else row.model_copy(update={"goal": goal})


def their_row(network: str, result: PeerResult) -> CutRow:
    """The row of what torch-pruning's process left in the folder `network`."""
    difference = result.gate.max_rel
    return CutRow(
        network=network,
        tool=THEIRS,
        align=result.align,
        macs=result.macs.slim,
        cut=result.macs.cut,
        params=result.params,
        gate=RowGate(passed=difference is not None and difference <= SAME, **result.gate.set_fields()),
        quality=RowQuality.model_validate(result.quality.to_data()),
        ratio=result.ratio,
        seconds=result.seconds,
        search_seconds=result.search_seconds,
        peak_bytes=result.peak_bytes,
    )


def timed_row(row: CutRow, timed: Benchmark) -> Row:
    """The row with its network's times, beside those of the dense network, which is the first of all."""
    if row.goal is not None:
        ratio, interval = timed.ratio(row.goal.of, row.network)
        goal = row.goal.model_copy(update={"reached": ratio, "reached_ci95": interval})
        row = row.model_copy(update={"goal": goal})
    speedup = timed.speedup[row.network]
    times = {
        "ms": timed.ms[row.network],
        "speedup": speedup,
        "ci95": timed.ci95[row.network],
        "efficiency": speedup / row.cut,
        "timing": timed.notes,
    }
    return Row.model_validate({**row.to_data(), **times})
