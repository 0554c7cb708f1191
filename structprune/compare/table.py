"""The comparison in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from ..report.table import titled
from ..runtimes import pace

COLUMNS = ("network", "MACs cut", "faster (95 %)", "efficiency", "kept", "as cut", "final", "seconds", "memory", "gate")


def compare_table(result: Mapping[str, Any]) -> Table:
    """A line for each network; where torch-pruning failed, its error as it is."""
    timed = [row for row in result["rows"] if "error" not in row]
    slower = [pace("dense", row["network"], row["speedup"], row["ci95"]) for row in timed]
    title = titled(escape(f"{result['model']}: {result['runtime']}"), slower)
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("network", "gate") else "right", overflow="fold")
    for row in result["rows"]:
        table.add_row(*map(escape, cells(row)))
    dense = result["dense"]
    errors = [f"{row['network']}: {row['error']}" for row in result["rows"] if "error" in row]
    timing: list[str] = next((row["timing"] for row in result["rows"] if row.get("timing")), [])
    about = [
        f"as cut, final: {result['metric']} (dense: {dense['quality']:.4f}); kept: geometric mean over groups of the "
        f"share of {result['kept_by']} scores that stays; seconds: from the recipe to the cut network + the search for "
        "its ratio; memory: the process's peak until then; gate: against the masked dense network, in float64",
        *result["notes"],
        *(_reached(row) for row in result["rows"] if "reached" in row.get("asked", {})),
        *timing,
        *errors,
    ]
    table.caption = escape("\n".join(about))
    return table


def cells(row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        return [row["network"], *["-"] * (len(COLUMNS) - 2), "failed"]
    low, high = row["ci95"]
    quality, gate, kept = row["quality"], row["gate"], row.get("kept_importance")
    seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
    seconds += f" + {row['search_seconds']:.1f}" if "search_seconds" in row else ""
    return [
        row["network"],
        f"{row['cut']:.2f}×",
        f"{row['speedup']:.2f}× ({low:.2f}-{high:.2f})",
        f"{row['efficiency']:.2f}",
        "-" if kept is None else f"{kept:.3f}",
        f"{quality['pruned']:.4f}",
        f"{quality['final']:.4f}",
        seconds,
        f"{row['peak_bytes'] / 2**20:,.0f} MiB",
        _verdict(gate),
    ]


def _reached(row: Mapping[str, Any]) -> str:
    goal, (low, high) = row["asked"], row["asked"]["reached_ci95"]
    return f"{row['network']} is {goal['reached']:.2f}× as fast as {goal['of']} (95 %: {low:.2f}-{high:.2f})"


def _verdict(gate: Mapping[str, Any]) -> str:
    if gate["passed"]:
        return "passed"
    if gate["max_rel"] is None:
        return f"can't be compared: {gate['detail']}"
    if gate.get("unclear"):
        return "unclear: a statistic over channels"
    return f"differs by {gate['max_rel']:.1e}"
