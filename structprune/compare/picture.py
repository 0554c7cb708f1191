"""The comparison in one picture: speed, importance kept and quality of each network."""

from __future__ import annotations

from pathlib import Path

from .records import Comparison

OURS, OTHERS, CUT = "#2b6cb0", "#9aa8b8", "#1a202c"


def draw(result: Comparison, path: Path) -> Path:
    """Draws bars of the measured speedup with their interval, the MACs cut as a mark; what is kept; quality.

    Args:
        result: The comparison.
        path: The PNG file.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    rows = result.finished()[::-1]
    failed = [row.network for row in result.failed()]
    names, places = [row.network for row in rows], range(len(rows))
    colours = [OURS if row.tool == "structprune" else OTHERS for row in rows]
    figure = Figure(figsize=(9, 1.5 + 0.45 * len(rows)), layout="constrained")
    speed, kept, quality = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    speedup = [row.speedup for row in rows]
    bounds = [
        [row.speedup - row.ci95[0] for row in rows],
        [row.ci95[1] - row.speedup for row in rows],
    ]
    speed.barh(places, speedup, xerr=bounds, color=colours, ecolor=CUT, height=0.62)
    speed.plot([row.cut for row in rows], places, "|", color=CUT, markersize=16, label="MACs cut")
    speed.axvline(1, color=CUT, linewidth=0.6)
    speed.set_xlabel("times as fast as dense (95 %)")
    figure.legend(*speed.get_legend_handles_labels(), frameon=False, loc="upper right", fontsize=8, markerscale=0.6)
    kept.barh(places, [row.kept_importance or 0 for row in rows], color=colours, height=0.62)
    kept.set_xlabel("importance kept")
    quality.barh(places, [row.quality.final for row in rows], color=colours, height=0.62)
    quality.axvline(result.dense.quality, color=CUT, linewidth=0.6, linestyle=":")
    quality.set_xlabel(f"{result.metric}, final")
    speed.set_yticks(list(places), names)
    for axes in (kept, quality):
        axes.set_xlim(0, 1.02)
    for axes in (speed, kept, quality):
        axes.spines[["top", "right"]].set_visible(False)
    title = f"{result.model}, {result.runtime}" + (f" (failed: {', '.join(failed)})" if failed else "")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    figure.savefig(path, dpi=120)
    return path
