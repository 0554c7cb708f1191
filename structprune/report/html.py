"""report.html: one page that stands alone. It opens with the verdict; its pictures are drawn by its own script."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from ..verify.gate_records import GateOfCut
from .group_details import RunGroups
from .headline import headline, targets
from .network_stages import folded
from .page_data import one_epoch, plots_of, quality_stages, trained_rounds, trainings
from .records import Group, Report
from .run_facts import RunFacts
from .table import also_rows, gate_rows, int8_rows, summary_rows
from .verdict import verdict_of

FOLDED = 60  # groups, from which on stages are closed at first


class NetworkStage(NamedTuple):
    """The groups of one stage of the network; without a name they are all."""

    name: str
    groups: tuple[Group, ...]

    @property
    def channels(self) -> int:
        """Of the leading layers."""
        return sum(group.channels for group in self.groups)

    @property
    def kept(self) -> int:
        """Of these, those that stay."""
        return sum(group.kept_channels or 0 for group in self.groups)


def render_html(report: Report, name: str, facts: RunFacts | None = None, members: RunGroups | None = None) -> str:
    """A page of a report.

    Args:
        report: What a run came to.
        name: What the page is called.
        facts: What else is known of the run, as `run_facts.facts_of` reads it from the folder that the page goes into.
        members: Who makes and reads each group, and its scores, as groups.json of the folder holds them.

    Returns:
        HTML that needs nothing beside it.
    """
    return render_page(
        "report.html",
        report=report,
        facts=facts,
        merges=any(group.merged_units for group in report.groups),
        verdict=report.verdict or verdict_of(report),
        name=name,
        figures=headline(report),
        targets=targets(report),
        rows=summary_rows(report),
        quality=quality_stages(report),
        int8=int8_rows(report) if report.int8 else None,
        also=also_rows(report.also),
        gate=Markup(gate_table(report.gate)),
        stages=_network_stages(report.groups),
        is_folded=len(report.groups) > FOLDED,
        plots=plots_of(report, members),
        group_rounds=members.rounds if members else 1,
        one_epoch=one_epoch(report.epochs),
        trained_rounds=trained_rounds(report.epochs),
        trainings=trainings(report.epochs),
    )


def render_page(template: str, **values: Any) -> str:
    """Renders a page that needs nothing beside it: style, script and the library that draws are within.

    Args:
        template: Its file.
        values: What stands in it, `plots` among them.

    Returns:
        HTML.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("structprune.report"), autoescape=True, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    vendored = files("structprune.report") / "vendor"
    environment.globals["library"] = {
        "script": Markup((vendored / "uPlot.iife.min.js").read_text(encoding="utf-8")),
        "style": Markup((vendored / "uPlot.min.css").read_text(encoding="utf-8")),
    }
    return environment


def gate_table(gate: GateOfCut) -> str:
    """The gate's comparisons as a table in HTML: passed, failed or not compared, each with its reason."""
    return _environment().get_template("gate.html").render(rows=gate_rows(gate))


def _network_stages(groups: Sequence[Group]) -> list[NetworkStage]:
    stages = folded([group.name for group in groups])
    return [NetworkStage(name, tuple(groups[index] for index in places)) for name, places in stages.items()]
