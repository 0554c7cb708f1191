"""Plans of one network for speed, by costs that were learned, measured and corrected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

import structprune as sp

from ...cost import CostModel, plan_measured
from ...errors import BudgetError
from ...graph import DependencyGraph
from ...plan.allocations import Allocate
from ...records import Scores
from ...typing import Budget
from ..beside_peer import CUT
from ..efficiency import SPARED

MOST = 1.05  # the speedup that is looked for, times the MACs cut that is asked for
OUTRUN = 1.03  # times the speed of torch-pruning's: plans are measured to be within 3 % of what was asked
TRIES = 3  # where it was expected, and not measured


@dataclass(frozen=True)
class Planner:
    """Plans a network by `l1` with the widths that the runtime is fast with.

    Attributes:
        model: The dense network.
        x: A batch of images.
        graph: Of the network.
        scores: Of its units.
        cost: What its widths cost, as learned.
        folder: Holds the dense network's `dense.onnx`, and takes the file of a network that is tried.
        seconds: For timing a network that is tried.
    """

    model: nn.Module
    x: Tensor
    graph: DependencyGraph
    scores: Scores
    cost: CostModel
    folder: Path
    seconds: float

    def plan(self, budget: Budget, cost: CostModel | None = None, sharing: str | Allocate = "knapsack") -> sp.Plan:
        """The plan for a budget, by the costs as learned or by others."""
        cost = cost or self.cost
        return sp.plan(self.graph, self.scores, budget, cost=cost, align=cost.multiples, allocation=sharing)

    def measured(self, budget: Budget) -> sp.Plan:
        """The plan for a budget whose speedup is measured and met."""
        dense = self.folder / "dense.onnx"
        return plan_measured(self.graph, budget, self.cost, lambda cost: self.plan(budget, cost), dense=dense)

    def tried(self, share: float) -> tuple[float, sp.Plan]:
        """The fastest plan of a share of the MACs, as measured, with its speedup.

        Costs are corrected by what was measured, and asked again, where they promised more than 1 ÷ share.
        """
        trials: list[tuple[float, sp.Plan]] = []
        expected, cost = MOST / share, self.cost
        while len(trials) < TRIES and expected > 0.98 * MOST / share and all(speed < 1 / share for speed, _ in trials):
            plan = fastest(partial(self.plan, cost=cost), share)
            slim = sp.export_onnx(sp.prune(self.model, plan), self.x, self.folder / "tried.onnx")
            timed = sp.benchmark({"dense": self.folder / "dense.onnx", "slim": slim}, seconds=self.seconds)
            trials.append((timed.speedup["slim"], plan))
            assert plan.latency is not None
            expected = plan.latency["dense"] / plan.latency["slim"]
            cost = cost.corrected(expected / timed.speedup["slim"])
        return max(trials, key=lambda trial: trial[0])

    def not_slower(self, speedup: float, cut: float) -> sp.Plan:
        """The fastest plan of half of the MACs; where another network is as fast, of fewer MACs, or of any.

        Args:
            speedup: Of the other network, as measured.
            cut: Dense MACs ÷ the other network's.
        """
        reached, plan = self.tried(CUT)
        if reached < 1.01 * speedup and cut > 1 / CUT:
            reached, plan = self.tried(1 / cut)
        return plan if reached >= 1.01 * speedup else self.measured({"macs": CUT, "speedup": OUTRUN * speedup})


def fastest(plan: Callable[[Budget], sp.Plan], share: float) -> sp.Plan:
    """The plan with a share of the MACs and the greatest speedup, by costs as learned, up to little over 1 ÷ share."""
    low, high, best = 1.0, MOST / share, plan({"macs": share})
    for _ in range(6):
        middle = (low + high) / 2
        try:
            candidate = plan({"macs": share, "speedup": middle})
        except BudgetError:
            high = middle
            continue
        if candidate.macs["slim"] >= SPARED * share * candidate.macs["dense"]:
            low, best = middle, candidate
        else:
            high = middle
    return best
