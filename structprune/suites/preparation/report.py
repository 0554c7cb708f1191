"""The table of what preparation took, and the lines below it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ..beside_peer import OURS, THEIRS
from .records import CAPTURE, Preparation, Summary


def table(records: Sequence[Preparation]) -> Table:
    """A line for each network, with what stopped a tool."""
    shown = Table("model", "nodes", OURS, THEIRS, "ratio", CAPTURE, "errors")
    shown.title = "Preparation in seconds, one thread"
    for column in shown.columns[1:6]:
        column.justify = "right"
    for record in records:
        numbers = (record.median(OURS), record.median(THEIRS), record.ratio(), record.median(CAPTURE))
        cells = ["-" if math.isnan(number) else f"{number:.2f}" for number in numbers]
        errors = "; ".join(f"{stage}: {error}" for stage, error in record.errors.items())
        shown.add_row(record.model, str(record.nodes or "-"), *cells, escape(errors))
    return shown


def lines(summary: Summary) -> list[str]:
    """How many networks both tools can do, the shares of torch-pruning's time, and the longest seconds."""
    names = {OURS: f"{OURS}'s seconds", CAPTURE: f"{OURS}'s capture alone"}
    shown = [f"{THEIRS} and {OURS} can both do {summary.both} of {summary.models} models"]
    for workload, share in summary.shares.items():
        shown.append(f"{names[workload]} ÷ {THEIRS}'s on these: sum {share.sum:.2f}, median {share.median:.2f}")
    for workload, (seconds, model) in summary.longest.items():
        shown.append(f"longest {workload} of all: {seconds:.2f} s ({model})")
    return shown
