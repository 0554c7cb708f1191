"""What preparing one network took both tools, and what many networks say together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..beside_peer import OURS, THEIRS
from ..pool import Record

CAPTURE, TRACE = "capture", "trace"  # parts of structprune's preparation
WORKLOADS = (CAPTURE, TRACE, OURS, THEIRS)  # each is timed by itself
DONE = "done"


@dataclass(frozen=True)
class Settings:
    """How preparation is timed.

    Attributes:
        repeats: Turns that are timed.
        timeout: Seconds for a run of torch-pruning.
        attn_dim: Whether `attn_dim` of attention layers is mended after torch-pruning too.
    """

    repeats: int = 3
    timeout: float = 100.0
    attn_dim: bool = False


@dataclass(frozen=True)
class Preparation:
    """One network.

    Attributes:
        model: Its name.
        nodes: Of its recording; None where it can't be traced.
        budget: The share of the MACs that may stay, as structprune planned it.
        errors: What stopped a workload, by its name, or the process, by its stage.
        seconds: Of each turn, by workload.
        stage: `DONE`, or where the process ended.
    """

    model: str
    nodes: int | None
    budget: float | None
    errors: dict[str, str]
    seconds: dict[str, list[float]]
    stage: str = DONE

    def median(self, workload: str) -> float:
        """Seconds of the median turn; NaN if there is none."""
        return statistics.median(self.seconds.get(workload) or [math.nan])

    def ratio(self, workload: str = OURS) -> float:
        """Seconds ÷ torch-pruning's, in the median of the turns; NaN unless both have some."""
        pairs = zip(self.seconds.get(workload, ()), self.seconds.get(THEIRS, ()), strict=False)
        return statistics.median([a / b for a, b in pairs] or [math.nan])


@dataclass(frozen=True)
class Share:
    """Of torch-pruning's seconds: over the networks together, and on the median network."""

    sum: float
    median: float


@dataclass(frozen=True)
class Summary:
    """Many networks.

    Attributes:
        models: How many.
        both: How many of them both tools can do.
        shares: Of torch-pruning's seconds on these, by workload; empty if there are none.
        longest: The longest seconds of all networks and whose they are, by workload.
    """

    models: int
    both: int
    shares: dict[str, Share]
    longest: dict[str, tuple[float, str]]

    def to_data(self) -> Record:
        shares = {workload: vars(share) for workload, share in self.shares.items()}
        longest = {f"longest_{workload}": list(entry) for workload, entry in self.longest.items()}
        return {"models": self.models, "both": self.both, **shares, **longest}


def summary(records: Sequence[Preparation]) -> Summary:
    """What networks say together.

    Args:
        records: The networks.

    Returns:
        structprune's share of torch-pruning's time, with that of its capture alone, and the longest seconds.
    """
    both = [record for record in records if record.ratio() > 0]
    shares = {}
    for workload in (OURS, CAPTURE) if both else ():
        total, theirs = (sum(record.median(name) for record in both) for name in (workload, THEIRS))
        shares[workload] = Share(total / theirs, statistics.median(record.ratio(workload) for record in both))
    longest = {}
    for workload in (CAPTURE, TRACE):
        entries = [(record.median(workload), record.model) for record in records if record.seconds.get(workload)]
        longest[workload] = max(entries, default=(0.0, "-"))
    return Summary(len(records), len(both), shares, longest)
