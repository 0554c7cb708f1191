"""Multiples are found in what widths take, and groups get the multiples that their layers need."""

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.cost import learn_multiples, learning
from structprune.cost.multiples import WIDTHS, measure_multiples, multiple_of, seen_multiples
from structprune.errors import BudgetError, RecipeError
from structprune.plan import choices
from structprune.plan.alignment import aligned
from structprune.runtimes import Runtime

from ..example_networks import Chain


@pytest.mark.parametrize(("block", "unit", "multiple"), [(16, 4, 16), (8, 1, 8), (1, 4, 4), (1, 1, 1), (16, 1, 16)])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_multiple_of_a_made_up_runtime(block, unit, multiple, noise):
    rng = np.random.default_rng(0)
    times = [
        (0.2 + 0.01 * -(-w // block) * block) * (1.4 if w % unit else 1.0) * (1 + noise * rng.standard_normal())
        for w in WIDTHS
    ]
    assert multiple_of(WIDTHS, times) == multiple


@pytest.mark.parametrize("slowed", [0.0, 0.1, 0.3])
def test_other_work_and_a_changing_pace_do_not_pass_for_another_step(slowed):
    rng = np.random.default_rng(0)
    quiet = np.array([0.2 + 0.01 * -(-w // 16) * 16 for w in WIDTHS])

    def rounds(count):
        pace = np.where(rng.random((count, 1)) < 0.3, 1.4, 1.0)
        beside = 1 + 0.5 * (rng.random((count, len(WIDTHS))) < slowed)
        return quiet * pace * beside * (1 + 0.005 * rng.standard_normal((count, len(WIDTHS))))

    seen = [seen_multiples(WIDTHS, rounds(24)) for _ in range(20)]
    assert {16} in seen
    assert all(len(multiples) > 1 for multiples in seen if multiples != {16})
    assert slowed > 0.2 or seen == [{16}] * 20


@pytest.mark.thorough
def test_steps_of_this_machine_are_powers_of_two():
    found = measure_multiples(Runtime(), seconds=0.05)
    assert set(found) == {"conv", "depthwise", "linear"}
    assert all(multiple in (1, 2, 4, 8, 16, 32) for multiples in found.values() for multiple in multiples)


def test_steps_that_timings_do_not_agree_on_are_told_and_not_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    seen, told, measured = {"conv": [8, 16], "depthwise": [16], "linear": [16]}, [], []
    monkeypatch.setattr(learning, "measure_multiples", lambda runtime, **_: measured.append(1) or seen)
    for times in (1, 2):
        assert learn_multiples(tell=told.append) == {"conv": 16, "depthwise": 16, "linear": 16}
        assert len(measured) == len(told) == times
        assert "conv (8 or 16)" in told[-1]
    seen["conv"] = [8]
    for _ in range(2):
        assert learn_multiples(tell=told.append) == {"conv": 8, "depthwise": 16, "linear": 16}
    assert (len(measured), len(told)) == (3, 2)


class Mixed(nn.Module):
    """conv(3→64) – depthwise – conv(64→32) – pool – linear(32→24) – linear(24→5)."""

    def __init__(self):
        super().__init__()
        self.a, self.d, self.b = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(64, 32, 1)
        self.c, self.e = nn.Linear(32, 24), nn.Linear(24, 5)

    def forward(self, x):
        return self.e(torch.relu(self.c(self.b(torch.relu(self.d(self.a(x)))).mean((2, 3)))))


def test_each_group_gets_the_multiple_of_its_layers():
    graph = sp.trace(Mixed(), torch.randn(1, 3, 8, 8))
    multiples = {"conv": 4, "depthwise": 32, "linear": 8}
    assert aligned(graph, multiples) == {"a": 32, "b": 8, "c": 8}
    assert aligned(graph, multiples, share=4) == {"a": 8, "b": 2, "c": 2}
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.6}, align=multiples)
    assert plan.widths["a"] % 32 == 0
    assert plan.widths["b"] % 8 == 0
    assert plan.constraints["align"] == multiples


def test_a_step_that_no_width_of_a_grouped_convolution_fits_is_halved_until_one_does():
    model = nn.Sequential(nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, groups=3), nn.Conv2d(24, 8, 1))
    graph = sp.trace(model, torch.randn(1, 3, 8, 8))
    multiples = aligned(graph, {"conv": 16})
    assert all(group.step == 3 for group in graph.groups)  # so widths are 3, 6, ..., 24
    assert multiples == {"0": 12, "1": 12}  # 24 and 48 are none of them


@pytest.mark.parametrize(
    ("multiple", "widths"), [(1, range(3, 25, 3)), (2, (6, 12, 18, 24)), (4, (12, 24)), (8, (24,))]
)
def test_each_block_of_a_grouped_convolution_is_a_whole_number_of_multiples(multiple, widths):
    """Also where nothing narrower is: a part of a multiple in each block is slower than all of it."""
    model = nn.Sequential(nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, groups=3), nn.Conv2d(24, 8, 1))
    graph = sp.trace(model, torch.randn(1, 3, 8, 8))
    ones = {group.name: np.ones(group.units) for group in graph.groups}
    found = choices(graph.groups, ones, 1, 0.9, aligned(graph, {"conv": multiple}), ())
    assert [sorted(choice.widths) for choice in found] == [sorted(widths)] * 2
    scores = sp.score(graph, "l1")
    slim = sp.prune(model, sp.plan(graph, scores, {"macs": 0.7}, align={"conv": multiple}))
    assert (
        slim[1].weight.shape[1] % min(multiple, 4) == 0
    )  # with whole multiples of 8 the budget can't be met, so it has halves


def test_a_budget_that_whole_steps_can_not_meet_takes_parts_of_them():
    graph = sp.trace(Chain(), torch.randn(1, 3, 10, 10))
    scores = sp.score(graph, "l1")
    plan = sp.plan(graph, scores, {"macs": 0.6}, align={"conv": 16, "linear": 16})
    assert plan.macs["slim"] <= 0.6 * plan.macs["dense"]
    assert any("1/4 of them" in note for note in plan.notes)
    with pytest.raises(BudgetError, match="align=auto the smallest network"):
        sp.plan(graph, scores, {"macs": 0.01}, align={"conv": 16, "linear": 16})


def test_one_input_channel_is_no_depthwise_convolution():
    model = nn.Sequential(nn.Conv2d(1, 64, 3), nn.Conv2d(64, 32, 3))
    graph = sp.trace(model, torch.randn(1, 1, 8, 8))
    assert aligned(graph, {"conv": 4, "depthwise": 32}) == {"0": 4}


def test_steps_are_checked():
    graph = sp.trace(Chain(), torch.randn(1, 3, 10, 10))
    scores = sp.score(graph, "l1")
    with pytest.raises(BudgetError, match=r"unknown kind of layer in align 'convs': did you mean conv"):
        sp.plan(graph, scores, {"macs": 0.5}, align={"convs": 4})
    with pytest.raises(BudgetError, match="align conv=0: give a whole number"):
        sp.plan(graph, scores, {"macs": 0.5}, align={"conv": 0})
    assert sp.plan(graph, scores, {"macs": 0.5}, align=np.int64(2)).constraints["align"] == 2
    with pytest.raises(RecipeError, match="unknown dtype 'float16'"):
        Runtime(dtype="float16")
