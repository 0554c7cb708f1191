"""Limits of the dense network hold for what rounds have left of it."""

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import BudgetError, PlanError
from structprune.plan.allocations import allocation_of
from structprune.schedules.round_limits import Goal, amounts_left, check_rounds, fewest, keeping

X = torch.randn(1, 3, 8, 8)


def network():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 20, 1), nn.ReLU(), nn.Conv2d(20, 10, 1), nn.ReLU(), nn.Conv2d(10, 4, 1))
    return nn.Sequential(*layers).eval()


def cut(model, **budget):
    graph = sp.trace(model, X)
    return sp.plan(graph, sp.score(graph, "l1"), budget, align=1)


def test_amounts_are_shares_of_the_dense_network():
    model = network()
    first = cut(model, channels=0.7)
    left = sp.trace(sp.prune(model, first), X)
    macs = 64 * (3 * 20 + 20 * 10 + 10 * 4)
    params = 3 * 20 + 20 + 20 * 10 + 10 + 10 * 4 + 4
    assert amounts_left({"macs": 0.5, "params": 0.25}, first, left) == {"macs": macs // 2, "params": params // 4}
    assert amounts_left({"channels": 0.5}, first, left) == {"channels": 15}
    again = sp.plan(left, sp.score(left, "l1"), amounts_left({"channels": 0.5}, first, left), align=1)
    assert sum(first.then(again).widths.values()) == 15


def test_a_speedup_is_one_over_the_network_that_is_cut():
    first = cut(network(), channels=0.7)
    left = sp.trace(sp.prune(network(), first), X)
    assert amounts_left({"speedup": 3, "params": 0.25}, first, left, 1.5) == {
        "speedup": 2, "params": first.params["dense"] // 4,
    }  # fmt: skip
    assert amounts_left({"speedup": 3}, first, left, 3.1) == {"macs": first.macs["slim"]}


def test_groups_are_cut_one_after_another():
    goal = Goal.of(cut(network(), channels=0.5), 2)
    assert goal.widths == {"0": 10, "2": 5}
    assert [goal.of_round(number) for number in (1, 2)] == [{"0": 10}, goal.widths]
    assert [Goal(goal.widths, 3).of_round(number) for number in (1, 2, 3)] == [{}, {"0": 10}, goal.widths]
    with pytest.raises(BudgetError, match="rounds=3, and the network has 2 groups of channels"):
        check_rounds(3, sp.trace(network(), X))


def test_channels_need_a_plan_that_names_its_groups():
    first = cut(network(), channels=0.7)
    first.groups = {}
    with pytest.raises(BudgetError, match="give a budget of macs or params, or cut at once"):
        amounts_left({"channels": 0.5}, first, sp.trace(network(), X))


def test_the_largest_share_that_may_go_is_of_the_dense_network():
    """Half of the 20 filters may go: of the 14 that a first round leaves, four, and not seven."""
    model = network()
    first = cut(model, channels=0.7)
    left = sp.trace(sp.prune(model, first), X)
    widths = {group.name: group.units for group in left.groups}
    assert widths == {"0": 14, "2": 7}
    least = fewest(first, left, 0.5)
    assert least == {"0": 10, "2": 5}
    allocation = keeping(allocation_of("uniform"), least)
    assert allocation.name == "uniform"
    plan = sp.plan(left, sp.score(left, "l1"), {"channels": 15}, allocation=allocation, align=1)
    assert plan.widths == {"0": 10, "2": 5}
    with pytest.raises(PlanError, match="over the budget"):
        sp.plan(left, sp.score(left, "l1"), {"channels": 12}, allocation=allocation, align=1)
