"""The numbers behind the pictures of a page, as plain data that its script draws.

Enters a `Report`; leaves dictionaries of lists. It knows nothing of HTML, nor of the library that draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .headline import is_share, share_interval
from .network_stages import is_worth_folding, stages_of
from .records import Report
from .training_records import Epochs

STAGES = {"dense": "dense", "pruned": "as cut", "recovered": "recovered"}


def plots_of(report: Report) -> dict[str, Any]:
    """The data of each picture of a report's page, by the picture's name.

    Args:
        report: What a run came to.

    Returns:
        Bars and curves; what there is nothing to show of is left out.
    """
    groups, layers = report.groups, report.layers
    plots = {}
    if groups:
        kept = [group.kept_channels or 0 for group in groups]
        plots["widths"] = bars([g.name for g in groups], [g.channels for g in groups], kept, "channels", "kept", "mean")
    if layers:
        slim = [layer.slim_ms for layer in layers]
        plots["times"] = bars([e.layer for e in layers], [e.dense_ms for e in layers], slim, "ms", "slim", "sum")
    plots["quality"] = quality_bars(report)
    return plots | curves(report.epochs)


def bars(
    names: Sequence[str], dense: Sequence[float], slim: Sequence[float], unit: str, word: str, fold: str
) -> dict[str, Any]:
    """Bars of the dense network with the slim one's before them.

    Args:
        names: Of the layers.
        dense: A number for each.
        slim: Likewise.
        unit: Of the numbers.
        word: What the slim network's bars are called.
        fold: How the numbers of a stage become one: `mean` or `sum`.

    Returns:
        The data of the picture.
    """
    stages = stages_of(names)
    return {
        "kind": "bars",
        "names": list(names),
        "stages": stages if is_worth_folding(stages) else [],
        "dense": _finite(dense),
        "slim": _finite(slim),
        "unit": unit,
        "labels": ["dense", word],
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


def quality_bars(report: Report) -> dict[str, Any]:
    """The quality of each stage of the run, with its interval where it has one.

    Args:
        report: What a run came to.

    Returns:
        The data of the picture.
    """
    stages = quality_stages(report)
    values = _finite([stage.value for stage in stages])
    return {
        "kind": "stages",
        "names": [stage.words for stage in stages],
        "values": values,
        "low": [stage.interval and stage.interval[0] for stage in stages],
        "high": [stage.interval and stage.interval[1] for stage in stages],
        "unit": report.quality.metric,
        "top": 1 if all(0 <= value <= 1 for value in values if value is not None) else None,
    }


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


def curves(epochs: Epochs) -> dict[str, Any]:
    """The loss of each training by epoch, and each metric of validation; `one_epoch` has those with nothing to draw.

    Args:
        epochs: Of the trainings of a run.

    Returns:
        The data of each picture, by its name.
    """
    trainings = {name: rows for name, rows in (("dense", epochs.dense), ("slim", epochs.slim)) if len(rows) > 1}
    if not trainings:
        return {}
    loss = {name: ([r.epoch for r in rows], _finite([r.train_loss for r in rows])) for name, rows in trainings.items()}
    plots = {"loss": _lines("training loss", loss)}
    for metric in sorted({row.metric for rows in trainings.values() for row in rows if row.metric}):
        points = {
            name: [(row.epoch, row.value) for row in rows if row.metric == metric and row.value is not None]
            for name, rows in trainings.items()
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
    return [name for name, rows in (("dense", epochs.dense), ("slim", epochs.slim)) if len(rows) == 1]


def _lines(title: str, lines: dict[str, tuple[list[int], list[float | None]]]) -> dict[str, Any]:
    return {
        "kind": "lines",
        "title": title,
        "unit": "epoch",
        "lines": [{"label": name, "x": x, "y": y} for name, (x, y) in lines.items()],
    }


def _finite(values: Sequence[float]) -> list[float | None]:
    """NaN and infinity are not JSON: a picture has a gap there."""
    return [value if math.isfinite(value) else None for value in values]
