"""The one factor on class scores, against a search over a grid and against what it must not touch."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import structprune as sp
from structprune.errors import RecipeError
from structprune.tasks.regression import Regression
from structprune.verify import expanded
from tests.example_networks import Chain, pruned, randomise

DATA = torch.randn(64, 3, 10, 10, generator=torch.Generator().manual_seed(3))
BATCHES = list(DATA.split(16))


def kl(dense, slim):
    return float(
        F.kl_div(slim.double().log_softmax(1), dense.double().log_softmax(1), log_target=True, reduction="batchmean")
    )


def shrunk(factor):
    """A network, its cut, and the cut one with class scores that are so many times as large."""
    model = randomise(Chain())
    with torch.no_grad():
        model.fc.weight *= 4
    plan, slim = pruned(model, DATA[:1], macs=0.8)
    with torch.no_grad():
        slim.fc.weight *= factor
        slim.fc.bias *= factor
    return model, plan, slim


@pytest.mark.parametrize("factor", [0.3, 2.5])
@torch.no_grad()
def test_the_factor_is_the_best_of_a_grid(factor):
    model, plan, slim = shrunk(factor)
    done = sp.recover(model, slim, plan, BATCHES, ["temperature"])
    assert done.layers == [1]
    ratio = done.model.fc.weight / slim.fc.weight
    found = float(ratio.flatten()[0])
    torch.testing.assert_close(ratio, torch.full_like(ratio, found))
    torch.testing.assert_close(done.model.fc.bias, slim.fc.bias * found)
    grid = np.geomspace(1 / 8, 8, 2001)
    best = min(grid, key=lambda s: kl(model(DATA), slim(DATA) * s))
    assert found == pytest.approx(best, rel=5e-3)
    assert torch.equal(done.model(DATA).argmax(1), slim(DATA).argmax(1))
    assert any("as large" in note for note in done.notes)
    gate = sp.verify(expanded(model, done.model, plan), done.model, plan, DATA[:3])
    assert gate.passed, gate.reasons()


def test_scores_that_are_right_stay_as_they_are():
    model = randomise(Chain())
    graph = sp.trace(model, DATA[:1])
    nothing = sp.plan(graph, sp.score(graph, "l1"), {"macs": 1.0}, align=1)
    done = sp.recover(model, sp.prune(model, nothing), nothing, BATCHES, ["temperature"])
    assert done.layers == [0]
    assert any("temperature changed nothing" in note for note in done.notes)
    assert torch.equal(done.model.fc.weight, model.fc.weight)


def test_what_are_no_class_scores_is_left_alone():
    model, plan, slim = shrunk(0.3)
    done = sp.recover(model, slim, plan, BATCHES, ["temperature"], task=Regression())
    assert done.layers == [0]
    assert torch.equal(done.model.fc.weight, slim.fc.weight)
    assert any("regression" in note and "no class scores" in note for note in done.notes)


class Softmax(Chain):
    def forward(self, x):
        return super().forward(x).softmax(1)


class Two(Chain):
    def forward(self, x):
        scores = super().forward(x)
        return scores, scores * 2


@pytest.mark.parametrize("kind", [Softmax, Two])
def test_scores_that_no_layer_makes_by_itself_are_left_alone(kind):
    model = randomise(kind())
    plan, slim = pruned(model, DATA[:1], macs=0.8)
    done = sp.recover(model, slim, plan, BATCHES, ["temperature"])
    assert done.layers == [0]
    assert torch.equal(done.model.fc.weight, slim.fc.weight)
    assert any("temperature changed nothing" in note for note in done.notes)


def test_it_comes_last():
    model, plan, slim = shrunk(0.3)
    with pytest.raises(RecipeError, match="put `temperature` after `least_squares`"):
        sp.recover(model, slim, plan, BATCHES, ["temperature", "least_squares"])
