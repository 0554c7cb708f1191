"""Whatever the network, the slim one equals the masked dense one; hypothesis chooses networks and plans."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import structprune as sp
from structprune.graph import Inputs
from structprune.report import count_macs
from structprune.verify import masked
from structprune.verify.gate import TOLERANCE, Comparison, _batches, _compare64, _compare_random
from tests.random_networks import RandomNet, networks


def check_pruned(spec: tuple[list[tuple[str, int]], str], seed: int, ratio: float) -> None:
    """Removes about `ratio` of each group at random, and compares in float64 with two sets of weights."""
    torch.manual_seed(seed)
    model = RandomNet(*spec).eval()
    x = torch.randn(1, 3, 12, 12)
    graph = sp.trace(model, x)
    rng = np.random.default_rng(seed)
    plan = sp.plan(
        graph,
        sp.score(graph, lambda group: torch.from_numpy(rng.random(group.units))),
        {"macs": max(ratio, _least(graph) + 1e-6)},
        allocation="global" if seed % 2 else "uniform",
        max_ratio=1.0,
    )
    slim = sp.prune(model, plan)
    batches = _batches(model, Inputs.of(x))
    own = Comparison(tolerance=TOLERANCE["float64"])
    _compare64(own, masked(model, plan), slim, batches)
    assert own.passed, own.detail
    assert own.batches == [1, 2]
    random = Comparison(tolerance=TOLERANCE["float64"])
    _compare_random(random, model, slim, plan, batches)
    assert random.passed, random.detail
    assert count_macs(slim, x) == {k: v for k, v in plan.macs_by_operator["slim"].items() if v}
    assert sum(p.numel() for p in slim.parameters()) == plan.params["slim"]


def _least(graph: sp.graph.DependencyGraph) -> float:
    return graph.macs({group.name: np.arange(1) for group in graph.groups}) / graph.macs()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(networks(), st.integers(0, 1000), st.floats(0.2, 0.9))
def test_slim_equals_masked(spec, seed, ratio):
    check_pruned(spec, seed, ratio)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(0, 1000), st.floats(0.2, 0.9))
def test_slim_equals_masked_many(spec, seed, ratio):
    check_pruned(spec, seed, ratio)
