"""report.html: one page that stands alone, with the table, the widths and the gate."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from ..verify.gate_records import GateOfCut
from .records import Report
from .table import also_rows, gate_rows, int8_rows, summary_rows
from .training_records import Epochs
from .verdict import verdict_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEHIND, _COLOURS = "#c9d3df", {"dense": "#8695a8", "slim": "#2b6cb0"}


def render_html(report: Report, name: str) -> str:
    """A page of a report.

    Args:
        report: What a run came to.
        name: What the page is called.

    Returns:
        HTML that needs nothing beside it.
    """
    groups = [(group.name, group.channels, group.kept_channels or 0) for group in report.groups]
    layers = [(layer.layer, layer.dense_ms, layer.slim_ms) for layer in report.layers]
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            merges=any(group.merged_units for group in report.groups),
            verdict=report.verdict or verdict_of(report),
            name=name,
            rows=summary_rows(report),
            int8=int8_rows(report) if report.int8 else None,
            also=also_rows(report.also),
            gate=Markup(gate_table(report.gate)),
            widths=Markup(_bars(groups, "channels", "groups", "kept")),
            times=Markup(_bars(layers, "ms", "layers", "slim") if layers else ""),
            curves=Markup(_curves(report.epochs)),
        )
    )


@cache
def _environment() -> Environment:
    return Environment(loader=PackageLoader("structprune.report"), autoescape=True, trim_blocks=True)


def gate_table(gate: GateOfCut) -> str:
    """The gate's comparisons as a table in HTML: passed, failed or not compared, each with its reason."""
    return _environment().get_template("gate.html").render(rows=gate_rows(gate))


def _bars(entries: Sequence[tuple[str, float, float]], unit: str, what: str, slim: str) -> str:
    """An SVG with a bar for each entry: before, and after in front of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.16 * len(entries)), 3.4), layout="constrained")
    axes = figure.add_subplot()
    names, before, after = zip(*entries, strict=True) if entries else ((), (), ())
    positions = range(len(entries))
    axes.bar(positions, before, color=_BEHIND, width=0.8, label="dense")
    axes.bar(positions, after, color=_COLOURS["slim"], width=0.8, label=slim)
    axes.set_ylabel(unit)
    axes.set_xlim(-0.7, len(entries) - 0.3)
    if len(entries) <= 40:
        axes.set_xticks(list(positions), names, rotation=60, ha="right", fontsize=7)
    else:
        axes.set_xlabel(f"{what}, in the order of the network")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _curves(epochs: Epochs) -> str:
    """An SVG with the loss of each training by epoch, and the metric of validation beside it; none for one epoch."""
    from matplotlib.figure import Figure

    trainings = {name: rows for name, rows in (("dense", epochs.dense), ("slim", epochs.slim)) if len(rows) > 1}
    metrics = sorted({row.metric for rows in trainings.values() for row in rows if row.metric})
    if not trainings:
        return ""
    figure = Figure(figsize=(4.6 * (1 + len(metrics)), 3.0), layout="constrained")
    loss, *others = figure.subplots(1, 1 + len(metrics), squeeze=False)[0]
    for name, rows in trainings.items():
        look = {"color": _COLOURS[name], "label": name, "marker": "o" if len(rows) < 12 else "", "markersize": 4}
        loss.plot([row.epoch for row in rows], [row.train_loss for row in rows], **look)
        for axes, metric in zip(others, metrics, strict=True):
            points = [(row.epoch, row.value) for row in rows if row.metric == metric and row.value is not None]
            axes.plot(*zip(*points, strict=True), **look)
    for axes, what in zip((loss, *others), ("training loss", *(f"{m}, validation" for m in metrics)), strict=True):
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    svg = stream.getvalue()
    return svg[svg.index("<svg") :]
