"""How near to the MACs cut the speedup can come at half of the MACs, and what that takes of the importance."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

import structprune as sp

from ..compare.peer import total_macs
from ..cost import CostModel, learn_cost
from ..errors import BudgetError
from ..plan.allocations import Allocate
from ..typing import Budget
from .beside_peer import CUT, ROUNDINGS, THEIRS, prune_by_peer, share_kept
from .efficiency import most_efficient
from .timm_models import build, example

PEER = f"{THEIRS}, {ROUNDINGS[-1]}"
KNAPSACK = "knapsack"
LEVEL, BEST = "most efficient, no less kept", "most efficient"


@dataclass(frozen=True)
class Slim:
    """One slim network.

    Attributes:
        cut: Dense MACs ÷ its MACs.
        predicted: Its speedup by the learned costs; None for torch-pruning's.
        speedup: Its speedup as measured.
        ci95: The 95 % interval.
        kept: The share of outputs that stay, in the geometric mean over convolutions and linear layers.
    """

    cut: float
    predicted: float | None
    speedup: float
    ci95: tuple[float, float]
    kept: float

    @property
    def efficiency(self) -> float:
        return self.speedup / self.cut


@dataclass(frozen=True)
class Limits:
    """One network at half of its MACs.

    Attributes:
        model: Its name.
        cost_error: By what share the learned costs are off, in the median.
        rows: The slim networks by what made them, or why there is none.
    """

    model: str
    cost_error: float
    rows: dict[str, Slim | str]


def limits(name: str, learn: float, seconds: float, tries: int) -> Limits:
    """Searches for the limits of a timm model with random weights.

    Args:
        name: Of the model.
        learn: Seconds for learning what its widths cost.
        seconds: For timing the networks.
        tries: Moves of each search.

    Returns:
        What was measured.
    """
    model = build(name, "cpu", seed=0)
    x = example(model, "cpu", seed=0)
    return limits_of(name, model, x, learn_cost(sp.trace(model, x), seconds=learn), seconds, tries)


def limits_of(name: str, model: nn.Module, x: Tensor, cost: CostModel, seconds: float, tries: int) -> Limits:
    """Prunes a network in four ways to half of its MACs, and times them.

    Args:
        name: What the record calls the network.
        model: The dense network.
        x: A batch of images.
        cost: What its widths cost.
        seconds: For timing the networks.
        tries: Moves of each search.

    Returns:
        What was measured.
    """
    graph = sp.trace(model, x)
    scores = sp.score(graph, "l1")
    peer = prune_by_peer(model, x, ROUNDINGS[-1])
    speed: Budget = {"macs": CUT, "speedup": 1.01}  # the search takes the most efficient, not the slowest that will do
    ways: dict[str, tuple[Budget, str | Allocate]] = {
        KNAPSACK: ({"macs": CUT}, KNAPSACK),
        LEVEL: (speed, most_efficient(model, share_kept(model, peer), tries)),
        BEST: (speed, most_efficient(model, 1e-9, tries)),
    }
    slims, predicted, refused = {PEER: peer}, {}, {}
    for row, (budget, allocation) in ways.items():
        try:
            plan = sp.plan(graph, scores, budget, cost=cost, align=cost.multiples, allocation=allocation)
        except BudgetError as error:
            refused[row] = str(error)
            continue
        assert plan.latency is not None
        slims[row] = sp.prune(model, plan)
        predicted[row] = plan.latency["dense"] / plan.latency["slim"]
    with tempfile.TemporaryDirectory() as folder:
        numbered = enumerate({"dense": model, **slims}.items())
        files = {row: sp.export_onnx(slim, x, Path(folder) / f"{number}.onnx") for number, (row, slim) in numbered}
        timed = sp.benchmark(files, seconds=seconds)
    rows: dict[str, Slim | str] = dict(refused)
    for row, slim in slims.items():
        cut = total_macs(model, x) / total_macs(slim, x)
        rows[row] = Slim(cut, predicted.get(row), timed.speedup[row], timed.ci95[row], share_kept(model, slim))
    return Limits(name, cost.error, rows)


def table(record: Limits) -> Table:
    """A line for each slim network."""
    title = f"{record.model}: costs off by {100 * record.cost_error:.1f} %, in the median"
    shown = Table(title=title, title_justify="left")
    for column in ("", "MACs cut", "predicted", "measured (95 %)", "efficiency", "kept"):
        shown.add_column(column, justify="right" if column else "left")
    for name, row in record.rows.items():
        if isinstance(row, str):
            shown.add_row(name, escape(row))
            continue
        low, high = row.ci95
        shown.add_row(
            name,
            f"{row.cut:.2f}×",
            "-" if row.predicted is None else f"{row.predicted:.2f}×",
            f"{row.speedup:.2f}× ({low:.2f}-{high:.2f})",
            f"{row.efficiency:.2f}",
            f"{row.kept:.3f}",
        )
    return shown
