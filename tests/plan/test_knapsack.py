"""The knapsack against every possible plan of small networks."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.plan import choices


class Pyramid(nn.Module):
    """Four convolutions in a row, of 6, 8, 10 and 12 channels, with a shortcut."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.c, self.d = nn.Conv2d(8, 10, 3, padding=1, stride=2), nn.Conv2d(10, 10, 3, padding=1)
        self.e = nn.Conv2d(10, 4, 1)

    def forward(self, x):
        x = torch.relu(self.b(torch.relu(self.a(x))))
        x = torch.relu(self.c(x))
        return self.e(x + self.d(x))


def lost(graph, scores, widths):
    """By the definition in `knapsack`'s docstring."""
    total = 0.0
    for group in graph.groups:
        values = np.sort(scores.values[group.name])[::-1]
        layers = sum(s.role == "filter" for s in group.slices)
        total -= layers * np.log(values[: widths[group.name]].sum() / values.sum())
    return total


@pytest.mark.parametrize("budget", [{"macs": 0.5}, {"macs": 0.3}, {"params": 0.4}, {"macs": 0.6, "params": 0.4}])
def test_no_plan_keeps_more_than_the_knapsack_but_for_a_little(budget):
    graph = sp.trace(Pyramid(), torch.randn(1, 3, 12, 12))
    scores = sp.score(graph, "l1")
    options = choices(graph.groups, scores.values, 1, 0.9, 1, ())
    names = [choice.group.name for choice in options]
    assert len(names) == 3
    best = np.inf
    for combination in itertools.product(*(choice.widths for choice in options)):
        widths = dict(zip(names, map(int, combination), strict=True))
        kept = {g.name: g.chosen(scores.values[g.name], widths[g.name]) for g in graph.groups}
        if graph.macs(kept) <= int(budget.get("macs", 1) * graph.macs()) and graph.params(kept) <= int(
            budget.get("params", 1) * graph.params()
        ):
            best = min(best, lost(graph, scores, widths))
    plan = sp.plan(graph, scores, budget, allocation="knapsack", align=1)
    for name, share in budget.items():
        assert getattr(plan, name)["slim"] <= share * getattr(plan, name)["dense"]
    found = lost(graph, scores, plan.widths)
    assert best - 1e-9 <= found <= 1.03 * best
    uniform = sp.plan(graph, scores, budget, align=1)
    assert found <= lost(graph, scores, uniform.widths) + 1e-9


def test_measured_losses_come_before_scores():
    graph = sp.trace(Pyramid(), torch.randn(1, 3, 12, 12))
    scores = sp.score(graph, "l1")
    steep, flat = ({g.units: 0.0, 1: loss} for g, loss in zip(graph.groups[:2], (10.0, 1e-3), strict=True))
    scan = sp.records.Sensitivity({"a": steep, "b": flat, "c": {10: 0.0, 1: 10.0}})
    plan = sp.plan(graph, scores, {"macs": 0.6}, allocation="knapsack", sensitivity=scan, align=1)
    assert plan.widths["b"] < plan.widths["a"] + 2
    assert plan.widths["b"] <= 4


def test_a_network_without_groups_stays():
    graph = sp.trace(nn.Conv2d(3, 4, 1), torch.randn(1, 3, 4, 4))
    assert sp.plan(graph, sp.score(graph, "l1"), {"macs": 1.0}, allocation="knapsack", align=1).widths == {}


def test_after_random_inputs_the_knapsack_weighs_losses_and_scores():
    """Against every plan: the least sum over groups of √(loss × layers × importance gone ÷ importance kept)."""
    graph = sp.trace(Pyramid(), torch.randn(1, 3, 12, 12))
    scores = sp.score(graph, "l1")
    scan = sp.records.Sensitivity(
        {g.name: {w: 1e3**-i * (g.units - w) for w in range(1, g.units + 1)} for i, g in enumerate(graph.groups)},
        inputs="random",
    )

    def weighed(widths):
        total = 0.0
        for group in graph.groups:
            values = np.sort(scores.values[group.name])[::-1]
            layers, kept = sum(s.role == "filter" for s in group.slices), values[: widths[group.name]].sum()
            odds = layers * (values.sum() - kept) / kept
            total += scan.losses[group.name][widths[group.name]] ** 0.5 * odds**0.5
        return total

    options = choices(graph.groups, scores.values, 1, 0.9, 1, ())
    every = [
        dict(zip([choice.group.name for choice in options], map(int, combination), strict=True))
        for combination in itertools.product(*(choice.widths for choice in options))
    ]
    for share in (0.7, 0.6):
        best = np.inf
        for widths in every:
            kept = {g.name: g.chosen(scores.values[g.name], widths[g.name]) for g in graph.groups}
            if graph.macs(kept) <= int(share * graph.macs()):
                best = min(best, weighed(widths))
        even = sp.plan(graph, scores, {"macs": share}, align=1)
        assert best < 0.7 * weighed(even.widths)
        for allocation, slack in (("knapsack", 1.03), ("sensitivity", 1.3)):
            plan = sp.plan(graph, scores, {"macs": share}, allocation=allocation, sensitivity=scan, align=1)
            assert best - 1e-9 <= weighed(plan.widths) <= slack * best, allocation
        alone = sp.plan(graph, scores, {"macs": share}, allocation="knapsack", align=1)
        assert plan.widths != alone.widths


@pytest.mark.parametrize("allocation", ["knapsack", "sensitivity"])
def test_uniform_ratios_stay_where_random_inputs_promise_little_more_and_the_cut_is_mild(allocation):
    graph = sp.trace(Pyramid(), torch.randn(1, 3, 12, 12))
    scores = sp.score(graph, "l1")
    even, few = (sp.plan(graph, scores, {"macs": share}, align=1).widths for share in (0.6, 0.4))

    def widths(factor, inputs, share=0.6):
        """After a scan by which group `a` loses `factor` times as much as the others for each unit that goes."""
        curves = {g.name: {w: (g.units - w) / w for w in range(1, g.units + 1)} for g in graph.groups}
        curves["a"] = {w: factor * loss for w, loss in curves["a"].items()}
        scan = sp.records.Sensitivity(curves, inputs=inputs)
        return sp.plan(graph, scores, {"macs": share}, allocation=allocation, sensitivity=scan, align=1).widths

    assert widths(8.0, "random") == even
    assert widths(8.0, "random", 0.4)["a"] == 5 > few["a"]
    assert widths(8.0, "samples") != even  # which are taken at their word
    assert widths(1e6, "random")["a"] == 6 > even["a"]


def test_a_group_that_random_inputs_lose_nothing_by_is_ranked_by_its_scores_alone():
    graph = sp.trace(Pyramid(), torch.randn(1, 3, 12, 12))
    scores = sp.score(graph, "l1")
    curves = {g.name: {g.units: 0.0, 1: 0.0} for g in graph.groups}
    curves["a"][1] = 1.0
    scan = sp.records.Sensitivity(curves, inputs="random")
    plan = sp.plan(graph, scores, {"macs": 0.6}, allocation="knapsack", sensitivity=scan, align=1)
    assert plan.widths["a"] == 6
    assert 1 < plan.widths["b"] < 8  # not all of it, for nothing
    assert 1 < plan.widths["c"] < 10
    negative = sp.score(graph, "l1")
    negative.values["b"] -= negative.values["b"].mean()  # no share of a sum: units count alike
    assert sp.plan(graph, negative, {"macs": 0.6}, allocation="knapsack", sensitivity=scan, align=1).widths["a"] == 6


def test_where_random_inputs_lose_nothing_at_all_the_scores_decide():
    graph = sp.trace(Pyramid(), torch.randn(1, 3, 12, 12))
    scores = sp.score(graph, "l1")
    scan = sp.records.Sensitivity({g.name: {g.units: 0.0, 1: 0.0} for g in graph.groups}, inputs="random")
    plan = sp.plan(graph, scores, {"macs": 0.5}, allocation="knapsack", sensitivity=scan, align=1)
    assert min(width / plan.groups[name]["units"] for name, width in plan.widths.items()) > 0.4
    empty = sp.records.Sensitivity({}, inputs="random")
    even = sp.plan(graph, scores, {"macs": 0.5}, align=1)
    assert (
        sp.plan(graph, scores, {"macs": 0.5}, allocation="knapsack", sensitivity=empty, align=1).widths == even.widths
    )
