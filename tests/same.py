"""Holds a slim network against the masked dense one, for several random plans: how an op rule is tested."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import structprune as sp
from structprune.errors import BudgetError
from structprune.graph import DependencyGraph
from structprune.modules import replace_tensors, skeleton_copy, tensors
from structprune.ops import Inputs, outputs
from structprune.verify import TOLERANCE, Comparison, batches_of, compare_finest, compare_random, masked

PLANS = 3


def assert_slim_equals_masked(model: nn.Module, inputs: Any, *, form: str = "module") -> DependencyGraph:
    """Traces `model`, prunes it by random plans, and compares in float64, with its own weights and with random ones.

    Returns the graph. Fails if nothing can be pruned: what must be a barrier is asserted on the graph.
    """
    model.eval()
    graph = sp.trace(model, inputs, form=form)
    for seed in range(PLANS):
        plan = random_plan(graph, seed)
        slim, batches = sp.prune(model, plan), batches_of(model, Inputs.of(inputs))
        own, random = Comparison(tolerance=TOLERANCE["float64"]), Comparison(tolerance=TOLERANCE["float64"])
        compare_finest(own, masked(model, plan), slim, batches)
        compare_random(random, model, slim, plan, batches)
        for weights, comparison in (("own", own), ("random", random)):
            assert comparison.passed, f"{weights} weights, plan {seed}: {comparison.detail}"
            assert comparison.batches, f"{weights} weights: {comparison.detail}"
    return graph


def assert_exact_is_exact(model: nn.Module, inputs: Any, *, form: str = "module") -> DependencyGraph:
    """As above; and where all groups are called exact, removing is masking with zero. Returns the graph."""
    graph = assert_slim_equals_masked(model, inputs, form=form)
    if all(group.exact for group in graph.groups):
        double = Inputs.of(inputs).map(lambda x: x.double() if x.is_floating_point() else x)
        for seed in range(PLANS):
            plan = random_plan(graph, seed)
            slim, dense = sp.prune(model, plan).double(), zeroed(model, plan.keep).double()
            with torch.no_grad():
                for made, want in zip(outputs(double.call(slim)), outputs(double.call(dense)), strict=True):
                    torch.testing.assert_close(made, want, rtol=1e-9, atol=1e-9)
    return graph


def zeroed(model: nn.Module, keep: dict[str, dict[str, Any]]) -> nn.Module:
    """The dense network with every removed slice of every parameter and buffer set to zero, but for variances."""
    copy = skeleton_copy(model)
    new = {key: tensor.detach().clone() for key, tensor in tensors(model).items()}
    for key, axes in keep.items():
        for dim, kept in axes.items() if not key.endswith("running_var") else ():
            blocks = kept if isinstance(kept[0], list) else [kept]
            size = len(new[key]) // len(blocks) if len(blocks) > 1 else len(new[key])
            for block, indices in enumerate(blocks):
                gone = [i for i in range(new[key].shape[int(dim)]) if i not in indices]
                part = new[key][block * size : (block + 1) * size]
                part.index_fill_(int(dim), torch.tensor(gone, dtype=torch.long), 0.0)
    replace_tensors(copy, new)
    return copy


def random_plan(graph: DependencyGraph, seed: int) -> sp.Plan:
    """Random scores, and the share of the MACs (of the parameters, where there are none) nearest to a random one."""
    rng = np.random.default_rng(seed)
    scores = sp.score(graph, lambda group: torch.from_numpy(rng.random(group.units)))
    measure, share = "macs" if graph.macs() else "params", float(rng.uniform(0.2, 0.8))
    while True:
        try:
            plan = sp.plan(
                graph, scores, {measure: share}, allocation=("uniform", "global")[seed % 2], max_ratio=1.0, align=1
            )
        except BudgetError:
            share += 0.3 * (1 - share)
            assert share < 0.999, f"nothing can be pruned: {graph.barriers}"
        else:
            assert plan.keep
            return plan
