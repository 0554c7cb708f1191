"""The table and the picture of what is left without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ...quality_judge import Quality
from .rows import Left, Row


def cell(left: Left | None) -> str:
    """A result in few characters: the value of the metric, with the KL divergence where there are no labels."""
    if left is None:
        return "-"
    kl = left.quality.kl
    return f"{left.quality.value:.3f}" + ("" if kl is None else f" / {kl:.2f}")


def line(row: Row) -> str:
    """A row in one line, as it is shown when it is measured."""
    results = ", ".join(f"{name} {cell(left)}" for name, left in row.results.items())
    surgery = f"{row.surgery}, " if row.surgery != "drop" else ""
    return f"{row.criterion}, {row.allocation}, {surgery}{row.cut:.2f}×: {results}"


def table(rows: Sequence[Row], network: str, recoveries: Sequence[str]) -> Table:
    """All rows, the smallest cuts first, with a column for each recovery."""
    quality = _first(rows)
    shown = Table(title=f"{network}: {quality.metric}{'' if quality.kl is None else ' / KL in nats'}")
    for name in ("criterion", "allocation", "surgery"):
        shown.add_column(name)
    for name in ("MACs cut", *recoveries):
        shown.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: row.target):
        cells = [cell(row.results.get(name)) for name in recoveries]
        shown.add_row(row.criterion, row.allocation, row.surgery, f"{row.cut:.2f}×", *cells)
    return shown


def draw(rows: Sequence[Row], recoveries: Sequence[str], path: Path) -> None:
    """Draws a line for each criterion and allocation, solid after the last recovery, dotted after the first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.criterion, row.allocation, row.surgery), []).append(row)
    for number, ((criterion, allocation, surgery), members) in enumerate(lines.items()):
        members = sorted(members, key=lambda row: row.cut)
        for which, style in ((recoveries[0], ":"), (recoveries[-1], "-")):
            points = [(row.cut, row.results[which].quality.value) for row in members if which in row.results]
            if points:
                label = ", ".join([criterion, allocation, *([surgery] if surgery != "drop" else []), which])
                axes.plot(*zip(*points, strict=True), style, marker="o", color=f"C{number % 10}", label=label)
    axes.set_xlabel("MACs cut (×)")
    axes.set_ylabel(f"{_first(rows).metric} without training")
    axes.set_ylim(0, 1.03)
    axes.set_xlim(1, 1.05 * max(row.cut for row in rows))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)


def _first(rows: Sequence[Row]) -> Quality:
    """A quality that stands for all of them, which are of one task."""
    return next(left.quality for row in rows for left in row.results.values())
