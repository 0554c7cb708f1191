"""The table of one network and the summary of many, with both tools side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ..beside_peer import OURS, THEIRS
from ..results import Failure
from .rows import ALONE, AT_ITS_SPEED, EFFICIENT, PEER, Comparison, Row

GATE = {True: "passed", False: "FAILED", None: "-"}


def table(record: Comparison) -> Table:
    """A line for each slim network, or what was raised instead."""
    shown = Table(title=f"{record.model}: {record.dense_ms:.1f} ms, {record.macs:,} MACs", title_justify="left")
    for column in ("", "MACs cut", "measured", "95 %", "efficiency", "kept", "seconds", "gate", "error"):
        shown.add_column(column, justify="left" if column in ("", "error") else "right", overflow="fold")
    for name, row in record.rows.items():
        if isinstance(row, Failure):
            shown.add_row(name, *["-"] * 7, escape(row.error))
            continue
        low, high = row.ci95
        numbers = (f"{row.cut:.2f}×", f"{row.speedup:.2f}×", f"{low:.2f}-{high:.2f}", f"{row.efficiency:.2f}")
        shown.add_row(name, *numbers, f"{row.kept:.3f}", f"{row.prepare_s:.0f}", GATE[row.gate], "")
    return shown


def summary(records: Sequence[Comparison]) -> list[str]:
    """On how many networks each aim was reached."""
    both = [record for record in records if _row(record, PEER)]
    not_slower = [r for r in both if _speedup(r, OURS) >= 0.99 * _speedup(r, PEER)]
    level = [r for r in both if _speedup(r, AT_ITS_SPEED) >= 0.97 * _speedup(r, PEER)]  # as budgets of speed are met
    more = [r for r in level if _kept(r, AT_ITS_SPEED) > _kept(r, PEER)]
    better = [
        r for r in both if _kept(r, EFFICIENT) >= _kept(r, PEER) and _speedup(r, EFFICIENT) >= 0.99 * _speedup(r, PEER)
    ]
    met = [r for r in records if abs(_speedup(r, ALONE) / 2 - 1) <= 0.05]
    return [
        f"efficiency at 2x MACs: {_efficient(records, OURS)}",
        f"where it is sought: {_efficient(records, EFFICIENT)}; no less kept than {THEIRS} with 16 nor slower: "
        f"{len(better)}",
        f"not slower (by over 1 %) than {THEIRS} with 16: {len(not_slower)} of {len(both)} that it can do",
        f"more kept at the speed of {THEIRS} with 16: {len(more)} of {len(level)} that are as fast",
        f"speedup 2.0 reached within 5 %: {len(met)} of {len(records)}",
    ]


def _efficient(records: Sequence[Comparison], name: str) -> str:
    rows = [row for record in records if (row := _row(record, name))]
    counts = (sum(row.efficiency >= least for row in rows) for least in (0.95, 0.85))
    return "0.95 or more on {}, 0.85 or more on {} of {}".format(*counts, len(records))


def _row(record: Comparison, name: str) -> Row | None:
    row = record.rows.get(name)
    return row if isinstance(row, Row) else None


def _speedup(record: Comparison, name: str) -> float:
    row = _row(record, name)
    return row.speedup if row else math.nan


def _kept(record: Comparison, name: str) -> float:
    row = _row(record, name)
    return row.kept if row else math.nan
