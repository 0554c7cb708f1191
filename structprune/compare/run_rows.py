"""Finished runs side by side as rows of text, for the terminal and for the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from ..report.verdict import factor_in_words
from .ranking import quality_text
from .run_records import ComparedRun, RunComparison, StageMetric

NOT_SET = "–"
MANY = 4  # runs, over which the terminal's table has a line for each


class Cell(NamedTuple):
    """What is said of one run: a value, and what it is made of."""

    value: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.detail})" if self.detail else self.value


class TextRow(NamedTuple):
    """What is said of each run."""

    name: str
    cells: list[Cell]


def run_rows(comparison: RunComparison) -> list[TextRow]:
    """What is said of each run: a name, and a text for each run.

    Args:
        comparison: The runs.

    Returns:
        The rows; those of what was asked and where come last.
    """
    runs = comparison.runs
    metric = runs[0].metric if len({run.metric for run in runs}) == 1 else "quality"
    return [
        TextRow("faster than dense", [_speed(run) for run in runs]),
        TextRow(f"{metric}, slim", [_quality(run) for run in runs]),
        TextRow(f"{metric}, dense", [Cell(_number(run, run.quality[0])) for run in runs]),
        TextRow("MACs", [Cell(f"{run.macs.cut:.2f}× fewer", f"{run.macs.slim:,}") for run in runs]),
        TextRow("parameters", [Cell(f"{run.params.cut:.2f}× fewer", f"{run.params.slim:,}") for run in runs]),
        TextRow(
            "slim.onnx", [Cell("–" if run.onnx_bytes is None else f"{run.onnx_bytes / 1e6:.2f} MB") for run in runs]
        ),
        TextRow("gate", [Cell("passed" if run.gate_passed else "failed") for run in runs]),
        TextRow("its own verdict", [Cell(run.state) for run in runs]),
    ]


def place_rows(comparison: RunComparison) -> list[TextRow]:
    """Where and when each run was measured.

    Args:
        comparison: The runs.

    Returns:
        A name, and a text for each run.
    """
    runs = comparison.runs
    dates = ["not known" if run.measured is None else f"{run.measured[:16].replace('T', ' ')} UTC" for run in runs]
    return [
        TextRow("network", [Cell(run.model) for run in runs]),
        TextRow("measured", [Cell(date) for date in dates]),
        TextRow("processor", [Cell(run.environment.processor, f"{run.environment.cores} cores") for run in runs]),
        TextRow("runtime", [_runtime(run) for run in runs]),
    ]


def recipe_rows(comparison: RunComparison) -> list[TextRow]:
    """The keys of the recipes that differ.

    Args:
        comparison: The runs.

    Returns:
        Each key, with its value in each run.
    """
    return [TextRow(entry.key, [Cell(_value(value)) for value in entry.values]) for entry in comparison.recipe]


def runs_table(comparison: RunComparison) -> Table:
    """Makes the table of a comparison of runs: a column for each run, or a line.

    Args:
        comparison: The runs.

    Returns:
        The table, for rich to print, with the verdict first and what differs in the recipes last. Over four runs have a
        line each.
    """
    table = Table(title=escape(comparison.verdict), title_justify="left", caption_justify="left")
    rows, differing = [*run_rows(comparison), *place_rows(comparison)], recipe_rows(comparison)
    if len(comparison.runs) > MANY:
        _fill_by_run(table, comparison, [*_short_rows(comparison), *differing])
    else:
        table.add_column("")
        for run in comparison.runs:
            table.add_column(escape(run.name), overflow="fold")
        for section in (rows, differing):
            for name, cells in section:
                table.add_row(escape(name), *(escape(str(cell)) for cell in cells))
            table.add_section()
    table.caption = escape("\n".join(_caption(comparison)))
    return table


def _fill_by_run(table: Table, comparison: RunComparison, rows: list[TextRow]) -> None:
    """A line for each run, where columns for all would be too narrow."""
    for name in ("run", *(row.name for row in rows)):
        table.add_column(escape(name), overflow="fold")
    for index, run in enumerate(comparison.runs):
        table.add_row(escape(run.name), *(escape(str(row.cells[index])) for row in rows))


def _short_rows(comparison: RunComparison) -> list[TextRow]:
    runs, quality = comparison.runs, comparison.quality.measure
    speeds = [
        (factor_in_words(run.latency.speedup, run.latency.ci95)[0], run.latency.ci95) if run.latency else None
        for run in runs
    ]
    return [
        TextRow(
            "faster than dense (95 %)",
            [Cell("not timed") if s is None else Cell(s[0], "{:.2f}-{:.2f}".format(*s[1])) for s in speeds],
        ),
        TextRow(f"{quality}, slim (95 %)", [_short_quality(run) for run in runs]),
        TextRow("MACs", [Cell(f"{run.macs.cut:.2f}× fewer") for run in runs]),
        TextRow("parameters", [Cell(f"{run.params.cut:.2f}× fewer") for run in runs]),
    ]


def _short_quality(run: ComparedRun) -> Cell:
    if run.final.ci95 is None:
        return Cell(_number(run, run.final))
    low, high = run.final.ci95
    return Cell(_number(run, run.final), f"{100 * low:.1f}-{100 * high:.1f}")


def _caption(comparison: RunComparison) -> Iterator[str]:
    if comparison.widths:
        alike = sum(width.same for width in comparison.widths)
        yield f"{alike} of {len(comparison.widths)} groups keep the same units in all runs"
    yield from comparison.notes
    if comparison.bench:
        yield f"side by side, from the folder of compare.html: {comparison.bench}"


def _speed(run: ComparedRun) -> Cell:
    timed = run.latency
    if timed is None:
        return Cell("not timed")
    low, high = timed.ci95
    factor, remark = factor_in_words(timed.speedup, timed.ci95)
    interval = f"95 %: {low:.2f} to {high:.2f}{remark}, n = {timed.turns} turns"
    return Cell(factor, f"{interval}; {timed.dense_ms:.3g} to {timed.slim_ms:.3g} ms")


def _quality(run: ComparedRun) -> Cell:
    text = _number(run, run.final)
    if run.final.ci95 is None:
        return Cell(text, f"n = {run.images}, no interval is known")
    low, high = run.final.ci95
    return Cell(text, f"95 %: {100 * low:.1f} to {100 * high:.1f} %, n = {run.images}")


def _number(run: ComparedRun, stage: StageMetric) -> str:
    return quality_text(run.model_copy(update={"quality": [stage]}), run.metric)


def _runtime(run: ComparedRun) -> Cell:
    if run.latency is None:
        return Cell("–")
    threads = f"{run.latency.threads} thread{'s' if run.latency.threads != 1 else ''}"
    return Cell(run.latency.runtime, f"{threads}, batch {run.latency.batch}")


def _value(value: Any) -> str:
    if value is None:
        return NOT_SET
    return value if isinstance(value, str) else json.dumps(value)
