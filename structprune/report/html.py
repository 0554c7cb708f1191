"""report.html: one page that stands alone, with the table, the widths and the gate."""

from __future__ import annotations

import io
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from .table import summary_rows


def render_html(report: dict[str, Any], name: str) -> str:
    environment = Environment(loader=PackageLoader("structprune.report"), autoescape=True, trim_blocks=True)
    template = environment.get_template("report.html")
    picture = Markup(_widths_picture(report["groups"]))
    return template.render(report=report, name=name, rows=summary_rows(report), picture=picture)


def _widths_picture(groups: list[dict[str, Any]]) -> str:
    """An SVG of each group's width, dense and kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.16 * len(groups)), 3.4), layout="constrained")
    axes = figure.add_subplot()
    positions = range(len(groups))
    axes.bar(positions, [g["channels"] for g in groups], color="#c9d3df", width=0.8, label="dense")
    axes.bar(positions, [g["kept_channels"] for g in groups], color="#2b6cb0", width=0.8, label="kept")
    axes.set_ylabel("channels")
    axes.set_xlim(-0.7, len(groups) - 0.3)
    if len(groups) <= 40:
        axes.set_xticks(list(positions), [g["name"] for g in groups], rotation=60, ha="right", fontsize=7)
    else:
        axes.set_xlabel("groups, in the order of the network")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    svg = stream.getvalue()
    return svg[svg.index("<svg") :]
