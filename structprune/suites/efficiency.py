"""Widths for the greatest efficiency, speedup ÷ MACs cut, by costs as learned.

A local search: it starts from the plan by `knapsack` for the MACs alone, moves up to three groups at a time by up to
four of their widths, at random (seeded), and takes what is predicted to be better and uses 0.98 to 1 of the MACs.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from torch import nn

from ..errors import BudgetError
from ..plan.allocations import Allocate, Load
from ..plan.budget import Choice, Widths
from ..plan.knapsack import knapsack
from ..records import Scores

SPARED = 0.98  # of the MACs that may stay: widths come in steps
MOST_GROUPS, MOST_STEPS = 3, 4


def most_efficient(model: nn.Module, least: float, tries: int) -> Allocate:
    """Makes an allocation for the budgets `macs` and `speedup`, in this order.

    Args:
        model: The dense network.
        least: The share of the outputs of convolutions and linear layers that stay at least, in the geometric mean.
        tries: Moves of the search.

    Returns:
        An allocation that chooses the widths which use most of the first budget for what they use of the second. It
        raises BudgetError where the search meets none.
    """
    layers = (path for path, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))
    return partial(_search, weights={f"{path}.weight" for path in layers}, least=least, tries=tries)


def _search(
    choices: list[Choice], scores: Scores, load: Load, *, weights: set[str], least: float, tries: int
) -> Widths:
    rng = np.random.default_rng(0)
    ladders = {c.group.name: [int(width) for width in c.widths] for c in choices if len(c.widths) > 1}
    outputs = {c.group.name: sum(s.key in weights and s.dim == 0 for s in c.group.slices) for c in choices}
    units = {c.group.name: c.group.units for c in choices}
    names, floor = list(ladders), math.log(least)

    def efficiency(at: Widths) -> float:
        kept = sum(outputs[name] * math.log(width / units[name]) for name, width in at.items()) / len(weights)
        if kept < floor:
            return 0.0
        macs, latency = load.shares(at)
        return float(macs / latency) if SPARED <= macs <= 1 else 0.0

    best = knapsack(choices, scores, Load(lambda at: load.shares(at)[:1]))
    reached = efficiency(best)
    for _ in range(tries):
        moved = dict(best)
        count = min(len(names), int(rng.integers(1, MOST_GROUPS + 1)))
        for name in rng.choice(names, size=count, replace=False):
            ladder = ladders[name]
            place = ladder.index(moved[name]) + rng.integers(-MOST_STEPS, MOST_STEPS + 1)
            moved[name] = ladder[int(np.clip(place, 0, len(ladder) - 1))]
        if (now := efficiency(moved)) > reached:
            best, reached = moved, now
    if not reached:
        raise BudgetError(f"the search met no widths that use the MACs and keep {least:.3f} of the outputs")
    return best
