"""Quality against cost in a picture: each arm with its deviations, and the Pareto front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .records import ArmSummary, SweepReport

FRONT, OTHERS, DENSE = "#2b6cb0", "#9aa8b8", "#1a202c"
_NAMED = 12  # arms up to which all have their names in the picture, and not only those of the front


def draw(report: SweepReport, path: Path) -> Path:
    """Draws mean quality against multiply-adds and against measured latency.

    Args:
        report: The sweep, of which at least one run finished.
        path: The PNG file.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    arms = [arm for arm in report.arms if arm.quality is not None]
    arms = [arm for arm in arms if arm.metric == arms[0].metric]
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, cost, front, label in (
        (panels[0], "macs", report.fronts.macs, "multiply-adds"),
        (panels[1], "ms", report.fronts.ms, "measured latency, ms"),
    ):
        _panel(axes, arms, cost, front)
        _dense(axes, report, arms[0].metric, f"dense_{cost}")
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(arms[0].metric)
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(f"{report.name}: mean ± standard deviation over {len(report.seeds)} seeds", fontsize=10)
    figure.savefig(path, dpi=120, format="png")
    return path


def _panel(axes: Any, arms: list[ArmSummary], cost: str, front: list[str]) -> None:
    places: dict[str, tuple[float, float]] = {}
    for arm in arms:
        quality, amount = arm.quality, getattr(arm, cost)
        assert quality is not None
        places[arm.arm] = amount.mean, quality.mean
        colour = FRONT if arm.arm in front else OTHERS
        axes.errorbar(*places[arm.arm], xerr=amount.std, yerr=quality.std, fmt="o", color=colour, markersize=4)
        if arm.arm in front or len(arms) <= _NAMED:
            axes.annotate(arm.arm, places[arm.arm], xytext=(4, 3), textcoords="offset points", fontsize=7, color=colour)
    axes.plot(*zip(*(places[name] for name in front), strict=True), color=FRONT, linewidth=0.8, label="Pareto front")


def _dense(axes: Any, report: SweepReport, metric: str | None, cost: str) -> None:
    """The dense networks, a star for each that the arms start from."""
    costs: dict[int, list[tuple[float, float]]] = {}
    for run in report.runs:
        if run.metric == metric:
            costs.setdefault(run.dense_macs, []).append((getattr(run, cost), run.dense))
    means = [tuple(sum(values) / len(values) for values in zip(*points, strict=True)) for points in costs.values()]
    axes.plot(*zip(*means, strict=True), "*", color=DENSE, markersize=9, label="dense")
