"""Allocation by a scan of sensitivities, and by one threshold."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import BudgetError, RecipeError
from structprune.plan.losses import between, hull
from structprune.records import Sensitivity
from tests.example_networks import randomise

DATA = torch.randn(40, 3, 10, 10, generator=torch.Generator().manual_seed(5))


class Tower(nn.Module):
    """Convolutions, the second of which has dead filters: it can lose half of them for nothing."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)
        self.fc = nn.Linear(16, 5)
        with torch.no_grad():
            self.b.weight[::2], self.b.bias[::2] = 0, 0

    def forward(self, x):
        return self.fc(self.c(self.b(self.a(x).relu()).relu()).relu().mean((2, 3)))


def test_what_costs_nothing_goes_first():
    model = Tower().eval()
    with torch.no_grad():
        model.fc.weight *= 20  # so that classes matter
    graph = sp.trace(model, DATA[:1])
    scores = sp.score(graph, "l1")
    found = sp.sensitivity(graph, scores, DATA)
    assert set(found.losses) == {"a", "b", "c"}
    assert all(losses[16] == 0 for losses in found.losses.values())
    assert found.losses["b"][8] < 1e-6 < 1e-4 < min(found.losses["a"][8], found.losses["c"][8])
    assert found.losses["b"][4] > 1e-4
    plan = sp.plan(graph, scores, {"macs": 0.75}, allocation="sensitivity", sensitivity=found, align=1)
    assert plan.widths["b"] < 16 == plan.widths["a"] == plan.widths["c"]
    assert 0.74 < plan.macs["slim"] / plan.macs["dense"] <= 0.75


def test_the_scan_leaves_the_model_alone_and_is_the_same_twice():
    model = Tower().eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    graph = sp.trace(model, DATA[:1])
    first, second = (sp.sensitivity(graph, sp.score(graph, "l1"), DATA, ratios=(0.25, 0.5)) for _ in range(2))
    assert first == second
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    with pytest.raises(RecipeError, match="8 calibration images make one batch"):
        sp.sensitivity(graph, sp.score(graph, "l1"), DATA[:8])
    with pytest.raises(BudgetError, match="allocation sensitivity needs a scan"):
        sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, allocation="sensitivity", align=1)


def test_the_sum_of_losses_is_near_the_least_by_brute_force():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    graph = sp.trace(model, DATA[:1])
    rng = np.random.default_rng(0)
    for _ in range(20):
        curves = {}
        for group in graph.groups:
            steps = np.sort(rng.random(5))  # rising, so that the losses are convex
            curves[group.name] = {6 - i: float(steps[:i].sum()) for i in range(6)}
        scores = sp.score(graph, "l1")
        plan = sp.plan(
            graph, scores, {"channels": 0.6}, allocation="sensitivity", sensitivity=Sensitivity(curves), align=1
        )
        names = [group.name for group in graph.groups]
        allowed = [w for w in itertools.product(range(1, 7), repeat=2) if sum(w) <= int(0.6 * 12)]
        best = min(sum(curves[n][k] for n, k in zip(names, w, strict=True)) for w in allowed)
        assert sum(curves[name][kept] for name, kept in plan.widths.items()) == pytest.approx(best)


def test_groups_that_were_not_scanned_go_only_where_they_must():
    graph = sp.trace(Tower().eval(), DATA[:1])
    scan = Sensitivity({"a": {16: 0.0, 8: 0.1, 4: 0.5}})
    scores = sp.score(graph, "l1")
    plan = sp.plan(graph, scores, {"macs": 0.8}, allocation="sensitivity", sensitivity=scan, align=1)
    assert plan.widths["b"] == plan.widths["c"] == 16
    deep = sp.plan(graph, scores, {"macs": 0.2}, allocation="sensitivity", sensitivity=scan, align=1)
    assert deep.widths["b"] < 16
    assert deep.macs["slim"] <= 0.2 * deep.macs["dense"]


def test_the_hull_is_convex_and_under_the_losses():
    losses = {16: 0.0, 12: 0.3, 8: 0.2, 4: 1.0}
    under = hull(losses)
    values = [under(kept) for kept in range(1, 17)]
    assert all(under(kept) <= loss + 1e-12 or kept == 8 for kept, loss in losses.items())
    assert all(a >= b for a, b in itertools.pairwise(values))
    steps = [a - b for a, b in itertools.pairwise(values)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize("power", [1, 2, 3.5])
def test_losses_between_measured_ones_rise_as_a_power_of_what_is_gone(power):
    losses = {64 - gone: 0.01 * gone**power for gone in (0, 8, 24, 48)}
    points = dict(between(losses))
    assert losses.items() <= points.items()
    assert len(points) > len(losses)
    assert all(loss == pytest.approx(0.01 * (64 - kept) ** power) for kept, loss in points.items())
    assert hull(losses)(48) == pytest.approx(0.01 * 16**power, rel=0.05)
    line = losses[56] + (losses[40] - losses[56]) / 2
    assert hull(losses)(48) <= line + 1e-12


def test_one_threshold_on_scores_as_they_are():
    model = randomise(Tower())
    graph = sp.trace(model, DATA[:1])
    scores = sp.score(graph, "l2")
    plan = sp.plan(graph, scores, {"channels": 0.5}, allocation="threshold", max_ratio=1.0, align=1)
    kept = np.concatenate([scores.values[name][group["kept"]] for name, group in plan.groups.items()])
    gone = np.concatenate([np.delete(scores.values[name], group["kept"]) for name, group in plan.groups.items()])
    must = sum(len(group["kept"]) == 1 for group in plan.groups.values())
    assert np.sort(kept)[must] > gone.max()
    assert len(kept) <= 24
