"""The table of networks under both tools, and what it has no column for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ...compare.peer import SEARCH_STEPS
from ..beside_peer import OURS, THEIRS
from ..pool import Record
from .records import Comparison, Settings, ToolResult

GATE = {True: "passed", False: "[red]failed[/red]", None: "-"}


def table(comparisons: Sequence[Comparison], settings: Settings) -> Table:
    """For each network a line for the dense one, and one for each tool."""
    threads = f"{settings.threads} thread{'s' if settings.threads > 1 else ''}"
    shown = Table(
        title=f"{100 * settings.cut:g} % of the MACs to be cut, align {settings.align}, {threads}",
        title_justify="left",
    )
    left = ("network", "tool", "gate")
    for column in ("network", "tool", "MACs", "params", "gate", "prepare", "latency", "faster (95 %)"):
        shown.add_column(column, justify="left" if column in left else "right", no_wrap=column in left)
    for comparison in comparisons:
        dense_ms = f"{comparison.benchmark.ms['dense']:.2f} ms" if comparison.benchmark else "-"
        counts = (f"{comparison.macs / 1e6:,.0f} M", f"{comparison.params / 1e6:.2f} M")
        shown.add_row(comparison.model, "dense", *counts, "-", "-", dense_ms, escape(comparison.benchmark_error) or "-")
        for result in comparison.results:
            cells = _cells(result, comparison)
            shown.add_row("", result.tool, *cells, end_section=result is comparison.results[-1])
    return shown


def remarks(comparison: Comparison) -> list[str]:
    """How long preparation took beside each other, and what finding torch-pruning's ratio took."""
    lines = []
    ratios, theirs = comparison.prepare_ratios, comparison.theirs
    if ratios:
        lines.append(
            f"{comparison.model}: preparation by {THEIRS} took {statistics.median(ratios):.2f}× as long as by {OURS} "
            f"(median of {len(ratios)} paired turns, {min(ratios):.2f} to {max(ratios):.2f})"
        )
    if theirs.search_s is not None:
        lines.append(
            f"{comparison.model}: finding {THEIRS}'s ratio {theirs.ratio:.4f} took {theirs.search_s:.2f} s (at most "
            f"{SEARCH_STEPS} prunings and counts), which is not in its preparation"
        )
    return lines


def machine_lines(machine: Record) -> list[str]:
    """On what it was measured, in a line, and with which versions, in another."""
    place = "{processor}, {cores} cores, {system}, Python {python}".format(**machine)
    return [place, ", ".join(f"{name} {number}" for name, number in machine["packages"].items())]


def _cells(result: ToolResult, comparison: Comparison) -> list[str]:
    """MACs, parameters, gate, preparation, latency and speedup of a tool's network, or what stopped it."""
    faster = "-"
    if result.error:
        faster = f"[red]{escape(result.error)}[/red]"
    elif result.speedup is not None and result.ci95 is not None:
        faster = f"{result.speedup:.2f}× ({result.ci95[0]:.2f} to {result.ci95[1]:.2f})"
    return [
        f"÷ {comparison.macs / result.macs:.3f}" if result.macs else "-",
        f"÷ {comparison.params / result.params:.3f}" if result.params else "-",
        GATE[result.gate],
        f"{statistics.median(result.prepare_s):.2f} s" if result.prepare_s else "-",
        f"{result.ms:.2f} ms" if result.ms is not None else "-",
        faster,
    ]
