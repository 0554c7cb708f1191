"""Products, balances and conflicts of units, on networks small enough to work out on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.graph.attributes import slim_attributes
from structprune.graph.removal import kept_positions
from structprune.graph.units import Cause, Units
from tests.example_networks import pruned

WHY = Cause("op", "node", "module", "reason")


def _classes(units: Units, *axes: np.ndarray) -> list[list[set[int]]]:
    resolved = units.resolve()
    return [[{int(c) for c in row if c >= 0} for row in resolved.of(axis)] for axis in axes]


def test_a_split_makes_each_position_go_with_any_of_its_factors():
    units = Units()
    flat = units.axis(6)
    outer, inner = units.split(flat, (2, 3), WHY)
    whole, rows, columns = _classes(units, flat, outer, inner)
    assert [whole[i] for i in range(6)] == [rows[i // 3] | columns[i % 3] for i in range(6)]
    assert len(set.union(*rows, *columns)) == 5


def test_the_same_split_twice_is_one():
    units = Units()
    flat = units.axis(6)
    first, second = units.split(flat, (2, 3), WHY), units.split(flat, (2, 3), WHY)
    a, b, c, d = _classes(units, *first, *second)
    assert (a, b) == (c, d)


def test_splits_that_do_not_agree_keep_what_is_right():
    units = Units()
    flat = units.axis(12)
    first, second = units.split(flat, (3, 4), WHY), units.split(flat, (4, 3), WHY)
    whole, *parts = _classes(units, flat, *first, *second)
    for (outer, inner), width in (((parts[0], parts[1]), 4), ((parts[2], parts[3]), 3)):
        assert [whole[i] for i in range(12)] == [outer[i // width] | inner[i % width] for i in range(12)]


def test_two_and_three_factors_of_one_axis_freeze_it():
    units = Units()
    a, b = units.axis(8), units.axis(8)
    units.split(a, (2, 4), WHY)
    units.split(b, (2, 2, 2), WHY)
    units.couple(a, b, WHY)
    resolved = units.resolve()
    assert resolved.frozen[resolved.of(a)].all()


def test_a_circle_is_frozen_and_ends():
    units = Units()
    a = units.axis(4)
    b = units.axis(2)
    units.derive(a[:, 0], np.stack([b[[0, 0, 1, 1], 0], a[[1, 2, 3, 0], 0]], axis=1), WHY)
    resolved = units.resolve()
    assert resolved.frozen[resolved.of(a)].all()


@pytest.mark.parametrize("tied", [False, True])
def test_a_balance_asks_for_equal_losses_or_is_met_by_ties(tied):
    units = Units()
    axis = units.axis(6)
    if tied:
        units.tie(axis[:3], axis[3:])
    units.balance([axis[:3], axis[3:]], WHY)
    resolved = units.resolve()
    assert [sorted(map(len, strata)) for strata in resolved.strata] == ([] if tied else [[3, 3]])


def test_a_finer_balance_holds_for_a_coarser_and_crossing_ones_are_tied():
    units = Units()
    axis = units.axis(8)
    units.balance(np.split(axis, 2), WHY)
    units.balance(np.split(axis, 4), WHY)
    (strata,) = units.resolve().strata
    assert sorted(map(len, strata)) == [2, 2, 2, 2]
    crossing = Units()
    axis = crossing.axis(8)
    crossing.balance(np.split(axis, 2), WHY)
    crossing.balance([axis[::2], axis[1::2]], WHY)
    resolved = crossing.resolve()
    classes = resolved.of(axis)[:, 0]
    assert np.array_equal(classes[::2], classes[1::2])


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.groups = (
            nn.Conv2d(3, 12, 1),
            nn.Conv2d(12, 12, 1, groups=12),
            nn.Conv2d(12, 4, 1),
            3,
        )

    def forward(self, x):
        x = self.a(x)
        n, c, h, w = x.shape
        return self.c(self.b(x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)))


def test_channel_shuffle_is_a_product():
    graph = sp.trace(Shuffle(), torch.randn(1, 3, 4, 4))
    assert {g.name: g.units for g in graph.groups} == {"a:groups": 3, "a": 4}
    keep = kept_positions(graph, {"a": np.array([0, 2])})
    assert keep["a.weight"]["0"] == [0, 2, 4, 6, 8, 10]
    assert keep["b.weight"]["0"] == [0, 1, 2, 6, 7, 8]  # the same, shuffled
    assert slim_attributes(graph, {"a:groups": np.array([0, 2])})[""] == {"groups": 2}


class TwoBalances(nn.Module):
    """Two grouped convolutions side by side, added to a third: two balances among the channels of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.Conv2d(6, 12, 3, padding=1, groups=2)
        self.c, self.out = nn.Conv2d(10, 20, 1), nn.Conv2d(20, 4, 1)

    def forward(self, x):
        return self.out((torch.cat([self.a(x[:, :4]), self.b(x[:, 4:])], 1) + self.c(x)).relu())


def test_balances_of_one_layer_are_kept_apart():
    graph = sp.trace(TwoBalances(), torch.randn(1, 10, 4, 4))
    assert sorted(g.units for g in graph.groups) == [8, 12]
    assert all(g.step == 2 for g in graph.groups)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scores = sp.score(graph, lambda group, rng=rng: torch.from_numpy(rng.random(group.units)))
        plan = sp.plan(graph, scores, {"macs": 0.6}, allocation="global", align=1)
        kept = np.isin(np.arange(20), plan.keep["c.weight"]["0"])
        assert kept[:4].sum() == kept[4:8].sum()
        assert kept[8:14].sum() == kept[14:].sum()


def test_wide_groups_choose_freely_and_keep_more_than_ties_would():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=2), nn.Conv2d(16, 4, 1)).eval()
    plan, slim = pruned(model, torch.randn(1, 3, 6, 6))
    blocks = plan.keep["1.weight"]["1"]
    assert len(blocks) == 2
    assert len(blocks[0]) == len(blocks[1])
    assert blocks[0] != blocks[1]
    gate = sp.verify(model, slim, plan, torch.randn(2, 3, 6, 6))
    assert gate.passed, gate.reasons()
