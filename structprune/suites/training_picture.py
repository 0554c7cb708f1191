"""The tables of docs/training.md that follow papers' figures, drawn, so that the two can't differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

INK, BLUE, GREY = "#1a202c", "#2b6cb0", "#8695a8"


class Point(NamedTuple):
    """A mean and its standard deviation."""

    mean: float
    deviation: float


def rows_of(page: str, heading: str) -> list[list[str]]:
    """Reads the first table under a heading.

    Args:
        page: Markdown.
        heading: The heading's text.

    Returns:
        The cells of each row, without the titles.
    """
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def point_of(cell: str) -> Point:
    """Reads a cell such as `0.9838 ± 0.0033`."""
    mean, deviation = re.findall(r"\d+\.\d+", cell)[:2]
    return Point(float(mean), float(deviation))


def draw(page: str, path: Path) -> None:
    """Draws slimming in passes, LeNets at once and in rounds, and the claims beside their opposites.

    Args:
        page: The text of docs/training.md.
        path: The SVG file. The same figures give the same file with the same matplotlib.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {"svg.hashsalt": "structprune", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(9, 6.6), layout="constrained")
        passes, lenet, lenet5, claims = figure.subplots(2, 2).flat
        _draw_passes(passes, rows_of(page, "Slimming in passes"))
        rows = rows_of(page, "In rounds against at once, on LeNets")
        half = len(rows) // 2
        _draw_rounds(lenet, "LeNet-300-100", rows[:half])
        _draw_rounds(lenet5, "LeNet-5", rows[half:])
        _draw_claims(claims, rows_of(page, "Units that move, penalties that grow, dense-sparse-dense"))
        for axes in (passes, lenet, lenet5, claims):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})


def _draw_passes(axes: Any, rows: Sequence[Sequence[str]]) -> None:
    trained = [point_of(row[3]) for row in rows]
    _draw_curve(axes, [f"{row[0]}\n{row[1]}" for row in rows], {"trained on after the cut": (trained, BLUE)})
    axes.set_title("A small VGG, slimmed in passes", loc="left")
    axes.set_xlabel("pass, and by how much MACs are cut")
    axes.set_ylabel("accuracy")


def _draw_rounds(axes: Any, network: str, rows: Sequence[Sequence[str]]) -> None:
    once, rounds = ([point_of(row[column]) for row in rows] for column in (2, 3))
    _draw_curve(axes, [row[1] for row in rows], {"at once": (once, GREY), "in rounds": (rounds, BLUE)})
    axes.set_title(network, loc="left")
    axes.set_xlabel("by how much parameters are cut")
    axes.set_ylabel("accuracy")


def _draw_curve(axes: Any, labels: Sequence[str], curves: Mapping[str, tuple[Sequence[Point], str]]) -> None:
    for place, (name, (points, colour)) in enumerate(curves.items()):
        shifted = [number + 0.06 * place for number in range(len(points))]  # so that bars do not hide each other
        means, deviations = zip(*points, strict=True)
        axes.errorbar(shifted, means, deviations, color=colour, marker="o", markersize=4, capsize=3, label=name)
    axes.set_xticks(range(len(labels)), labels)
    axes.legend(frameon=False)


def _draw_claims(axes: Any, rows: Sequence[Sequence[str]]) -> None:
    names = [re.sub(r"[`*]", "", row[0]).partition(":")[0] for row in rows]
    means, deviations = zip(*[point_of(row[1]) for row in rows], strict=True)
    axes.errorbar(means, range(len(rows)), xerr=deviations, color=BLUE, marker="o", markersize=4, capsize=3, ls="none")
    axes.set_yticks(range(len(rows)), names, color=INK)
    axes.invert_yaxis()
    axes.set_title("Claims beside their opposites", loc="left")
    axes.set_xlabel("accuracy, at 16× but for the last two")
