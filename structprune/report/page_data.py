"""The numbers behind the pictures of a page, as plain data that its script draws.

Enters a `Report`; leaves dictionaries of lists. It knows nothing of HTML, nor of the library that draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .group_details import RunGroups
from .group_picture import group_picture
from .headline import is_share, share_interval
from .network_stages import is_worth_folding, stages_of
from .records import Report
from .training_records import Epoch, Epochs

STAGES = {"dense": "dense", "pruned": "as cut", "recovered": "recovered"}


def plots_of(report: Report, members: RunGroups | None = None) -> dict[str, Any]:
    """The data of each picture of a report's page, by the picture's name.

    Args:
        report: What a run came to.
        members: Who makes and reads each group, and its scores, where the run kept them.

    Returns:
        Bars, curves and groups; what there is nothing to show of is left out.
    """
    groups, layers = report.groups, report.layers
    plots = {}
    if groups:
        kept = [group.kept_channels or 0 for group in groups]
        columns = {"dense": [group.channels for group in groups], "kept": kept}
        plots["widths"] = bars([group.name for group in groups], columns, ["dense", "slim"], "channels", "mean")
    if members is not None and members.groups:
        plots["groups"] = group_picture(report, members)
    if layers:
        times = {"dense": [layer.dense_ms for layer in layers], "slim": [layer.slim_ms for layer in layers]}
        plots["times"] = bars([layer.layer for layer in layers], times, ["dense", "slim"], "ms", "sum")
    plots["quality"] = quality_bars({report.model.name: quality_stages(report)}, report.quality.metric)
    return plots | curves(report.epochs)


def bars(
    names: Sequence[str], columns: Mapping[str, Sequence[float | None]], shades: Sequence[str], unit: str, fold: str
) -> dict[str, Any]:
    """Bars of the dense network with those of slim ones before them.

    Args:
        names: Of the layers.
        columns: For each network what it is called, and a number for each layer; the dense network's first.
        shades: The colours of the networks, as the style of the page names them.
        unit: Of the numbers.
        fold: How the numbers of a stage become one: `mean` or `sum`.

    Returns:
        The data of the picture.
    """
    stages = stages_of(names)
    return {
        "kind": "bars",
        "names": list(names),
        "stages": stages if is_worth_folding(stages) else [],
        "columns": [_finite(values) for values in columns.values()],
        "labels": list(columns),
        "shades": list(shades),
        "unit": unit,
        "fold": fold,
    }


class StageQuality(NamedTuple):
    """The metric of one network of a run, with its 95 % interval where it has one; a likeness to itself is exact."""

    words: str
    value: float
    interval: tuple[float, float] | None
    is_exact: bool = False

    @property
    def interval_text(self) -> str:
        """The interval in words."""
        if self.interval is None:
            return "exact" if self.is_exact else "not known"
        return f"{100 * self.interval[0]:.1f} to {100 * self.interval[1]:.1f} %"


def quality_bars(
    runs: Mapping[str, Sequence[StageQuality]], metric: str, shades: Sequence[str] = ("slim",)
) -> dict[str, Any]:
    """The quality of each stage of one run or of several, with its interval where it has one.

    Args:
        runs: The stages of each run, by what the run is called.
        metric: What was measured.
        shades: The colours of the runs, as the style of the page names them.

    Returns:
        The data of the picture.
    """
    names = _in_order([[stage.words for stage in stages] for stages in runs.values()])
    series: list[dict[str, Any]] = []
    for (label, stages), shade in zip(runs.items(), shades, strict=True):
        known = {stage.words: stage for stage in stages}
        values = _finite([known[name].value if name in known else None for name in names])
        intervals = [known[name].interval if name in known else None for name in names]
        bounds = {"low": [i and i[0] for i in intervals], "high": [i and i[1] for i in intervals]}
        series.append({"label": label, "shade": shade, "values": values, **bounds})
    is_of_shares = all(0 <= value <= 1 for line in series for value in line["values"] if value is not None)
    return {"kind": "stages", "names": names, "series": series, "unit": metric, "top": 1 if is_of_shares else None}


def _in_order(lines: Sequence[Sequence[str]]) -> list[str]:
    """The names of several lines, each in its place in the line that has it."""
    names: list[str] = []
    for line in lines:
        place = 0
        for name in line:
            if name in names:
                place = names.index(name) + 1
            else:
                names.insert(place, name)
                place += 1
    return names


def quality_stages(report: Report) -> list[StageQuality]:
    """The metric of each network that was measured, under the words of a reader.

    Args:
        report: What a run came to.

    Returns:
        A row for each stage, `dense` first.
    """
    quality = report.quality
    final = report.finetuning.of_what() if report.finetuning else "final"
    words = {**STAGES, "final": "fine-tuned" if final == "final" and report.finetuning else final}
    rows = []
    for stage, value in quality.stages().items():
        is_exact = stage == "dense" and quality.metric == "agreement"  # with itself
        interval = share_interval(value, quality.images) if is_share(quality, value) and not is_exact else None
        rows.append(StageQuality(words.get(stage, stage), value, interval, is_exact))
    return rows


def point_cloud(
    x: Sequence[float | None],
    x_intervals: Sequence[tuple[float, float] | None],
    unit: str,
    *,
    y: Sequence[float | None],
    y_intervals: Sequence[tuple[float, float] | None],
    title: str,
    names: Sequence[str],
    shades: Sequence[str],
    front: Sequence[str],
    fewer_is_better: bool,
) -> dict[str, Any]:
    """Runs as points of cost and quality.

    Args:
        x: The cost of each run.
        x_intervals: Its 95 % interval, where one is known.
        unit: Of the cost.
        y: The quality of each run.
        y_intervals: Likewise.
        title: What quality is measured by.
        names: Of the runs.
        shades: The colours of the runs, as the style of the page names them.
        front: The names of the runs that no other one beats in both.
        fewer_is_better: Whether less of the cost is better.

    Returns:
        The data of the picture.
    """
    return {
        "kind": "points",
        "names": list(names),
        "shades": list(shades),
        "x": _finite(x),
        "xInterval": list(x_intervals),
        "unit": unit,
        "better": "less" if fewer_is_better else "more",
        "y": _finite(y),
        "yInterval": list(y_intervals),
        "title": title,
        "front": [list(names).index(name) for name in front],
    }


def curves(epochs: Epochs) -> dict[str, Any]:
    """The loss of each training by epoch, and each metric of validation; `one_epoch` has those with nothing to draw.

    What the slim network was trained for in several rounds is one line.

    Args:
        epochs: Of the trainings of a run.

    Returns:
        The data of each picture, by its name.
    """
    drawn = {name: rows for name, rows in trainings(epochs) if len(rows) > 1}
    if not drawn:
        return {}
    loss = {name: ([r.epoch for r in rows], _finite([r.train_loss for r in rows])) for name, rows in drawn.items()}
    plots = {"loss": _lines("training loss", loss)}
    for metric in sorted({row.metric for rows in drawn.values() for row in rows if row.metric}):
        points = {
            name: [(row.epoch, row.value) for row in rows if row.metric == metric and row.value is not None]
            for name, rows in drawn.items()
        }
        lines = {name: ([x for x, _ in line], _finite([y for _, y in line])) for name, line in points.items() if line}
        plots[f"curve-{len(plots)}"] = _lines(f"{metric}, validation", lines)
    return plots


def one_epoch(epochs: Epochs) -> list[str]:
    """Which trainings are no curve, as they had one epoch: the page says so.

    Args:
        epochs: Of the trainings of a run.

    Returns:
        `dense`, `slim`, both or neither.
    """
    return [name for name, rows in trainings(epochs) if len(rows) == 1]


def trainings(epochs: Epochs) -> list[tuple[str, list[Epoch]]]:
    """The networks that were trained, with their epochs: those of the slim one in all rounds."""
    return [(name, rows) for name, rows in (("dense", epochs.dense), ("slim", epochs.throughout())) if rows]


def trained_rounds(epochs: Epochs) -> list[tuple[int, int, int]]:
    """Where the rounds lie on the curve of a slim network that was trained in several.

    Args:
        epochs: Of the trainings of a run.

    Returns:
        The number of each round that trained, and its first and its last epoch as the curve counts them; nothing where
        there was one training at most.
    """
    if not any(epochs.rounds):
        return []
    spans, last = [], 0
    for number, rows in enumerate([*epochs.rounds, epochs.slim], 1):
        if rows:
            spans.append((number, last + 1, last + len(rows)))
            last += len(rows)
    return spans


def _lines(title: str, lines: dict[str, tuple[list[int], list[float | None]]]) -> dict[str, Any]:
    return {
        "kind": "lines",
        "title": title,
        "unit": "epoch",
        "lines": [{"label": name, "x": x, "y": y} for name, (x, y) in lines.items()],
    }


def _finite(values: Sequence[float | None]) -> list[float | None]:
    """NaN and infinity are not JSON: a picture has a gap there."""
    return [value if value is not None and math.isfinite(value) else None for value in values]
