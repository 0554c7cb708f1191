"""The table of docs/speed.md in one picture, so that the two can't differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The columns of the table that are drawn, with what they are called and their colours.
BARS = {"torch-pruning": ("torch-pruning", "#c3ccd6"), "with 16": ("torch-pruning, widths rounded to 16", "#8695a8"),
        "structprune (95 %)": ("structprune", "#2b6cb0")}  # fmt: skip
INK = "#1a202c"


def speedups_of(page: str) -> dict[str, dict[str, float]]:
    """Reads the first table of a page such as docs/speed.md.

    Args:
        page: Markdown, whose first table has a column `network` and cells that begin with a speedup, as in `1.98×`.

    Returns:
        For each network, its speedup by each column of `BARS`.
    """
    lines = next(part for part in page.split("\n\n") if part.startswith("| network")).splitlines()
    titles, _, *rows = ([cell.strip() for cell in line.split("|")] for line in lines)
    return {row[1]: {title: _number(row[titles.index(title)]) for title in BARS} for row in rows}


def _number(cell: str) -> float:
    match = re.search(r"([\d.]+)×", cell)
    assert match, cell
    return float(match[1])


def draw(speedups: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draws a bar for each network and tool.

    Args:
        speedups: As `speedups_of` gives them.
        path: The SVG file. The same figures give the same file with the same matplotlib.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.hashsalt": "structprune",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        axes = figure.subplots()
        height = 0.27
        for order, (column, (label, colour)) in enumerate(BARS.items()):
            places = [place + (order - 1) * height for place in range(len(speedups))]
            values = [row[column] for row in speedups.values()]
            bars = axes.barh(places, values, height * 0.92, color=colour, label=label)
            if column == list(BARS)[-1]:
                axes.bar_label(bars, [f"{value:.2f}×" for value in values], padding=3, fontsize=9, color=INK)
        axes.axvline(1, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(speedups)), list(speedups))
        axes.invert_yaxis()
        axes.set_xlabel("times as fast as the dense network, at about half of the MACs")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.legend(frameon=False, loc="outside upper left", ncols=3, fontsize=9)
        figure.savefig(path, metadata={"Date": None})
