"""The comparison in the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from ..report.table import titled
from ..runtimes import pace
from .records import Asked, Comparison, FailedRow, Row, RowGate

COLUMNS = ("network", "MACs cut", "faster (95 %)", "efficiency", "kept", "as cut", "final", "seconds", "memory", "gate")


def compare_table(result: Comparison) -> Table:
    """Makes the table of a comparison: a line for each network; where torch-pruning failed, its error as it is.

    Args:
        result: The comparison.

    Returns:
        The table, for rich to print.
    """
    slower = [pace("dense", row.network, row.speedup, row.ci95) for row in result.finished()]
    title = titled(escape(f"{result.model}: {result.runtime}"), slower)
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("network", "gate") else "right", overflow="fold")
    for row in result.rows:
        table.add_row(*map(escape, cells(row)))
    timing: list[str] = next((row.timing for row in result.finished() if row.timing), [])
    about = [
        f"as cut, final: {result.metric} (dense: {result.dense.quality:.4f}); kept: geometric mean over groups of the "
        f"share of {result.kept_by} scores that stays; seconds: from the recipe to the cut network + the search for "
        "its ratio; memory: the process's peak until then; gate: against the masked dense network, in float64",
        *result.notes,
        *(_reached(row.network, row.goal) for row in result.finished() if row.goal and row.goal.reached_ci95),
        *timing,
        *(f"{row.network}: {row.error}" for row in result.failed()),
    ]
    table.caption = escape("\n".join(about))
    return table


def cells(row: Row | FailedRow) -> list[str]:
    """A network's line."""
    if isinstance(row, FailedRow):
        return [row.network, *["-"] * (len(COLUMNS) - 2), "failed"]
    low, high = row.ci95
    seconds = "-" if row.seconds is None else f"{row.seconds:.1f}"
    seconds += "" if row.search_seconds is None else f" + {row.search_seconds:.1f}"
    return [
        row.network,
        f"{row.cut:.2f}×",
        f"{row.speedup:.2f}× ({low:.2f}-{high:.2f})",
        f"{row.efficiency:.2f}",
        "-" if row.kept_importance is None else f"{row.kept_importance:.3f}",
        f"{row.quality.pruned:.4f}",
        f"{row.quality.final:.4f}",
        seconds,
        f"{row.peak_bytes / 2**20:,.0f} MiB",
        verdict_on(row.gate),
    ]


def _reached(network: str, goal: Asked) -> str:
    assert goal.reached_ci95 is not None
    low, high = goal.reached_ci95
    return f"{network} is {goal.reached:.2f}× as fast as {goal.of} (95 %: {low:.2f}-{high:.2f})"


def verdict_on(gate: RowGate) -> str:
    """What the gate of a row shows, and no more than that."""
    if gate.passed:
        return "passed"
    if gate.max_rel is None:
        return f"can't be compared: {gate.detail}"
    return "unclear: a statistic over channels" if gate.unclear else f"differs by {gate.max_rel:.1e}"
