"""report.html: one page that stands alone, with the table, the widths and the gate."""

from __future__ import annotations

import io
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from .table import also_rows, gate_rows, int8_rows, summary_rows


def render_html(report: dict[str, Any], name: str) -> str:
    template = _environment().get_template("report.html")
    groups, layers = report["groups"], report["layers"]
    widths = _bars([(g["name"], g["channels"], g["kept_channels"]) for g in groups], "channels", "groups", "kept")
    times = _bars([(e["layer"], e["dense_ms"], e["slim_ms"]) for e in layers], "ms", "layers", "slim") if layers else ""
    return template.render(
        report=report,
        name=name,
        rows=summary_rows(report),
        int8=int8_rows(report) if report["int8"] else None,
        also=also_rows(report),
        gate=Markup(gate_table(report["gate"])),
        widths=Markup(widths),
        times=Markup(times),
    )


def _environment() -> Environment:
    return Environment(loader=PackageLoader("structprune.report"), autoescape=True, trim_blocks=True)


def gate_table(gate: dict[str, Any]) -> str:
    """The gate's comparisons as a table in HTML: passed, failed or not compared, each with its reason."""
    return _environment().get_template("gate.html").render(rows=gate_rows(gate))


def _bars(entries: list[tuple[str, float, float]], unit: str, what: str, slim: str) -> str:
    """An SVG with a bar for each entry: before, and after in front of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.16 * len(entries)), 3.4), layout="constrained")
    axes = figure.add_subplot()
    names, before, after = zip(*entries, strict=True) if entries else ((), (), ())
    positions = range(len(entries))
    axes.bar(positions, before, color="#c9d3df", width=0.8, label="dense")
    axes.bar(positions, after, color="#2b6cb0", width=0.8, label=slim)
    axes.set_ylabel(unit)
    axes.set_xlim(-0.7, len(entries) - 0.3)
    if len(entries) <= 40:
        axes.set_xticks(list(positions), names, rotation=60, ha="right", fontsize=7)
    else:
        axes.set_xlabel(f"{what}, in the order of the network")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    svg = stream.getvalue()
    return svg[svg.index("<svg") :]
