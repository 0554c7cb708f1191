"""A sweep as a table: in the terminal, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from .records import ArmSummary, Spread, SweepReport
from .spread import shown_spread
from .verdict import verdict_lines

PICTURE = "sweep.png"
_CSV_NUMBERS = ("quality", "dense", "macs", "cut", "params", "ms", "speedup")


def columns(report: SweepReport) -> list[str]:
    """The heads of a sweep's table; quality is called by its metric, if all arms have the same."""
    return ["arm", "n", _metric_name(report), "dense", "MACs cut", "ms", "times as fast"]


def _metric_name(report: SweepReport) -> str:
    metrics = {arm.metric for arm in report.arms if arm.metric is not None}
    return metrics.pop() if len(metrics) == 1 else "quality"


def cells(arm: ArmSummary) -> list[str]:
    """An arm's line."""
    count = f"{arm.n}" + (f" ({arm.failed} failed)" if arm.failed else "")
    numbers = ((arm.quality, 4), (arm.dense, 4), (arm.cut, 2), (arm.ms, None), (arm.speedup, 2))
    return [arm.arm, count, *(shown_spread(number, digits) for number, digits in numbers)]


def sweep_table(report: SweepReport) -> Table:
    """Makes the table of a sweep: a line for each arm, with mean ± standard deviation over seeds.

    Args:
        report: The sweep.

    Returns:
        The table, for rich to print.
    """
    table = Table(title=escape(title(report)), title_justify="left", caption_justify="left")
    for name in columns(report):
        table.add_column(escape(name), justify="left" if name == "arm" else "right", overflow="fold")
    for arm in report.arms:
        table.add_row(*map(escape, cells(arm)))
    table.caption = escape("\n".join(captions(report)))
    return table


def title(report: SweepReport) -> str:
    return f"{report.name}: mean ± standard deviation over seeds {', '.join(map(str, report.seeds))}"


def captions(report: SweepReport) -> list[str]:
    """What stands below the table: which differences exceed the spread, then each run that failed."""
    errors = [f"{failure.folder} failed: {failure.error}" for failure in report.failures]
    return [*verdict_lines(report), *errors]


def sweep_csv(report: SweepReport) -> str:
    """Writes the table of a sweep for other programs: a line for each arm.

    Args:
        report: The sweep.

    Returns:
        CSV: the arm, its label on each axis, counts, and mean and standard deviation of each number.
    """
    axes = list(dict.fromkeys(axis for arm in report.arms for axis in arm.labels))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    numbers = [f"{name}_{part}" for name in _CSV_NUMBERS for part in ("mean", "std")]
    writer.writerow(["arm", *axes, "n", "failed", "metric", *numbers])
    for arm in report.arms:
        spreads: list[Spread | None] = [getattr(arm, name) for name in _CSV_NUMBERS]
        values = [value for spread in spreads for value in ((spread.mean, spread.std) if spread else (None, None))]
        labels = [arm.labels.get(axis, "") for axis in axes]
        writer.writerow([arm.arm, *labels, arm.n, arm.failed, arm.metric, *values])
    return stream.getvalue()


def sweep_markdown(report: SweepReport) -> str:
    """Writes a sweep as a page.

    Args:
        report: The sweep.

    Returns:
        Markdown.
    """
    lines = [f"# {_plain(report.name)}", "", f"{_plain(title(report))}.", ""]
    lines += markdown_table(columns(report), [cells(arm) for arm in report.arms])
    if report.runs:
        lines += ["", f"![Quality against multiply-adds and latency]({PICTURE})"]
    for text in captions(report):
        lines += ["", _plain(text)]
    if any(arm.rounds for arm in report.arms):
        quality = [f"{_metric_name(report)} {when}" for when in ("as cut", "recovered", "at the round's end")]
        heads = ["arm", "round", "n", "MACs cut", "parameters cut", *quality]
        lines += ["", "## Rounds", "", *markdown_table(heads, _round_rows(report))]
    return "\n".join(lines) + "\n"


def _round_rows(report: SweepReport) -> list[list[str]]:
    """A line for each round of each arm that is cut in several: multiply-adds of dense ÷ what is left, and quality."""
    return [
        [
            arm.arm,
            str(entry.round),
            str(entry.n),
            *(shown_spread(number, 2) for number in (entry.cut, entry.params)),
            *(shown_spread(number, 4) for number in (entry.pruned, entry.recovered, entry.final)),
        ]
        for arm in report.arms
        for entry in arm.rounds
    ]


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, the first column to the left and the others to the right."""
    body = [heads, *rows]
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in body]
    return [lines[0], "|---|" + "---:|" * (len(heads) - 1), *lines[1:]]


def _plain(text: str) -> str:
    """Plain text in Markdown."""
    return re.sub(r"([|*_<>`\[\]\\])", r"\\\1", " ".join(text.split()))
