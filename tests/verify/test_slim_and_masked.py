"""The public comparison of a slim network with the masked dense one, as tests of a rule use it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.graph import Flow, Value, rule
from structprune.suites.equality import Wrong, assert_slim_equals_masked, random_plan, zeroed
from structprune.verify import compare_slim_with_masked
from tests.example_networks import Chain

X = torch.randn(1, 3, 10, 10)


@pytest.mark.parametrize("form", ["module", "graph"])
def test_what_is_compared(form):
    model = Chain().eval()
    plan = random_plan(sp.trace(model, X, form=form), seed=0)
    slim = sp.prune(model, plan)
    comparisons = compare_slim_with_masked(model, slim, plan, X, training=True)
    assert list(comparisons) == ["own weights", "random weights", "a training step"]
    assert all(comparison.passed for comparison in comparisons.values())
    assert comparisons["own weights"].batches == [1, 2]
    assert comparisons["own weights"].tolerance == 1e-9
    assert list(compare_slim_with_masked(model, slim, plan, X)) == ["own weights", "random weights"]


def test_a_wrong_cut_is_seen_where_the_own_weights_hide_it():
    model = Chain().eval()
    with torch.no_grad():
        model.bn1.weight.zero_()  # and its bias is zero: nothing that conv1 makes reaches the output
    plan = random_plan(sp.trace(model, X), seed=0)
    slim = sp.prune(model, plan)
    kept = plan.keep["conv2.weight"]["1"]
    other = next(index for index in range(8) if index not in kept)
    shifted = {**plan.keep, "conv2.weight": {**plan.keep["conv2.weight"], "1": sorted([other, *kept[1:]])}}
    comparisons = compare_slim_with_masked(model, slim, replace(plan, keep=shifted), X)
    assert comparisons["own weights"].passed
    assert comparisons["random weights"].failed


def test_a_rule_that_is_wrong_is_named_with_its_plan():
    """The check itself: a rule that lets channels pass though their places change."""

    @torch.library.custom_op("suites::turned", mutates_args=())
    def turned(x: torch.Tensor) -> torch.Tensor:
        return x.flip(1)

    @turned.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    @rule("suites::turned")
    def turned_rule(flow: Flow, x: Value) -> Value:
        return Value(tuple(flow.shape), x.axes)

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.leave = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.leave(turned(self.enter(x)))

    with pytest.raises(Wrong, match="own weights, plan 0: relative difference"):
        assert_slim_equals_masked(Turned(), X)


def test_what_can_not_be_pruned_is_said():
    with pytest.raises(Wrong, match="nothing can be pruned"):
        assert_slim_equals_masked(nn.Sequential(nn.Conv2d(3, 4, 1)), X)


def test_zeroed():
    layer = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    masked = zeroed(layer, {"0.weight": {"0": [0, 2]}, "1.running_var": {"0": [0, 2]}})
    assert masked[0].weight.abs().sum(1).gt(0).tolist() == [True, False, True, False]
    assert torch.equal(masked[1].running_var, layer[1].running_var)
    assert layer[0].weight.abs().sum(1).gt(0).all()
