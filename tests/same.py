"""Holds a slim network against the masked dense one, for several random plans: how an op rule is tested."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import structprune as sp
from structprune.errors import BudgetError
from structprune.graph import DependencyGraph, Inputs
from structprune.verify import masked
from structprune.verify.gate import TOLERANCE, Comparison, _batches, _compare64, _compare_random

PLANS = 3


def assert_slim_equals_masked(model: nn.Module, inputs: Any, *, form: str = "module") -> DependencyGraph:
    """Traces `model`, prunes it by random plans, and compares in float64, with its own weights and with random ones.

    Returns the graph. Fails if nothing can be pruned: what must be a barrier is asserted on the graph.
    """
    model.eval()
    graph = sp.trace(model, inputs, form=form)
    for seed in range(PLANS):
        plan = random_plan(graph, seed)
        slim, batches = sp.prune(model, plan), _batches(model, Inputs.of(inputs))
        own, random = Comparison(tolerance=TOLERANCE["float64"]), Comparison(tolerance=TOLERANCE["float64"])
        _compare64(own, masked(model, plan), slim, batches)
        _compare_random(random, model, slim, plan, batches)
        for weights, comparison in (("own", own), ("random", random)):
            assert comparison.passed, f"{weights} weights, plan {seed}: {comparison.detail}"
            assert comparison.batches, f"{weights} weights: {comparison.detail}"
    return graph


def random_plan(graph: DependencyGraph, seed: int) -> sp.Plan:
    """Random scores, and the share of the MACs (of the parameters, where there are none) nearest to a random one."""
    rng = np.random.default_rng(seed)
    scores = sp.score(graph, lambda group: torch.from_numpy(rng.random(group.units)))
    measure, share = "macs" if graph.macs() else "params", float(rng.uniform(0.2, 0.8))
    while True:
        try:
            plan = sp.plan(graph, scores, {measure: share}, allocation=("uniform", "global")[seed % 2], max_ratio=1.0)
        except BudgetError:
            share += 0.3 * (1 - share)
            assert share < 0.999, f"nothing can be pruned: {graph.barriers}"
        else:
            assert plan.keep
            return plan
