"""The gate on a slim network that was trained since: what the caller must say, and what is caught all the same."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import RecipeError
from structprune.plan import realise
from structprune.report.table import gate_caption
from structprune.verify import expanded
from tests.example_networks import Chain, Tied, pruned, randomise

X = torch.randn(4, 3, 10, 10)


def _cut(form="module", make=Chain):
    model = randomise(make())
    plan, slim = pruned(model, X[:1], form=form)
    return model, plan, slim


def _train(slim, steps=3):
    optimiser = torch.optim.SGD(slim.parameters(), 0.05)
    slim.train()
    for _ in range(steps):
        optimiser.zero_grad()
        out = slim(X)
        out.square().mean().backward()
        optimiser.step()
    return slim.eval()


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize("make", [Chain, Tied])
def test_a_trained_network_passes_when_that_is_said(make, form):
    model, plan, slim = _cut(form, make)
    _train(slim)
    gate = sp.verify(model, slim, plan, X)
    assert not gate.passed
    assert gate.reasons()[0].startswith("masked_vs_slim: ")
    assert "weights: the slim network's weights are not those of the dense network" in gate.reasons()[-1]
    assert "if it was trained or recovered since, pass trained=True" in gate.reasons()[-1]
    gate = sp.verify(model, slim, plan, X, trained=True)
    assert gate.passed, gate.reasons()
    told = gate.record().to_data()
    assert told["weights"]["trained"] is True
    assert told["weights"]["differing"] > 0
    assert "compared with the dense network with the slim one's weights" in told["weights"]["detail"]
    assert gate.weights.detail in gate_caption(gate.record())
    assert gate.float64.max_rel == sp.verify(expanded(model, slim, plan), slim, plan, X).float64.max_rel


def test_what_was_not_trained_says_so():
    model, plan, slim = _cut()
    gate = sp.verify(model, slim, plan, X, trained=True)
    assert gate.passed
    assert "nothing was trained since" in gate.weights.detail
    gate = sp.verify(model, slim, plan, X)
    assert gate.passed
    assert (gate.weights.detail, gate.record().to_data()["weights"]["differing"]) == ("", 0)


def _other_plan(model, plan):
    """Another plan of the same shapes."""
    kept = copy.deepcopy(plan.groups)
    for group in kept.values():
        gone = [unit for unit in range(group["units"]) if unit not in group["kept"]]
        group["kept"] = sorted([*group["kept"][1:], gone[0]]) if gone else group["kept"]
    graph = sp.trace(model, X[:1])
    return realise(graph, {name: np.array(group["kept"]) for name, group in kept.items()})


@pytest.mark.parametrize("trained", [False, True])
def test_a_network_cut_by_another_plan_is_caught_whatever_is_said_of_it(trained):
    model, plan, _ = _cut()
    other = sp.prune(model, _other_plan(model, plan))
    gate = sp.verify(model, other, plan, X, trained=trained)
    assert not gate.passed
    assert "conv1.weight" in gate.reasons()[-1]
    assert "not those at the plan's positions: it was cut by another plan, or wrongly" in gate.reasons()[-1]
    masked = any(reason.startswith("masked_vs_slim") for reason in gate.reasons())
    assert masked is not trained  # with its own weights in the plan's places it is a sound network


def test_filters_in_another_order_are_caught_whatever_is_said():
    model, plan, slim = _cut()
    slim.conv1.weight.data = slim.conv1.weight.data.flip(0)
    for trained in (False, True):
        assert (
            "conv1.weight of the slim network holds numbers"
            in sp.verify(model, slim, plan, X, trained=trained).reasons()[-1]
        )


def test_surgery_that_left_a_wrong_number_is_caught_in_trained_networks():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b, self.width = nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1), 8

        def forward(self, x):
            return self.b(self.norm(self.a(x)) / self.width)

    model = Scaled().eval()
    plan, slim = pruned(model, X[:1])
    _train(slim)
    assert sp.verify(model, slim, plan, X, trained=True).passed
    slim.norm.num_groups = 1
    gate = sp.verify(model, slim, plan, X, trained=True)
    assert any(reason.startswith("float64: ") for reason in gate.reasons())


def test_damage_is_caught_unless_it_is_called_training():
    model, plan, slim = _cut()
    with torch.no_grad():
        slim.fc.bias[0] += 1e-7  # less than any tolerance of outputs
    gate = sp.verify(model, slim, plan, X)
    assert [reason.partition(":")[0] for reason in gate.reasons()][-1] == "weights"
    assert "(fc.bias)" in gate.reasons()[-1]


def test_few_new_numbers_that_the_dense_network_has_too_may_be_trained():
    model, plan, slim = _cut()
    with torch.no_grad():
        model.bn1.weight.fill_(1.0)
        model.bn1.weight[0] = 0.5
        slim.bn1.weight.fill_(0.5)
        slim.conv2.bias[0] = 0.0
    assert sp.verify(model, slim, plan, X, trained=True).passed


def test_what_a_network_notes_when_it_runs_is_no_difference_by_itself():
    class Notes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen = x.detach().mean().reshape(1)
            return self.b(self.a(x).relu())

    model = Notes().eval()
    plan, slim = pruned(model, X[:1])
    slim(X[:1])
    gate = sp.verify(model, slim, plan, X)
    assert gate.passed, gate.reasons()
    assert gate.weights.buffers == ["seen"]


def test_a_network_that_lacks_weights_is_refused_by_name():
    model, plan, slim = _cut()
    slim.conv2 = nn.Identity()
    gate = sp.verify(model, slim, plan, X, trained=True)
    assert "the dense network can't hold the slim network's weights: KeyError" in gate.reasons()[-1]
    _, _, narrow = _cut()
    narrow.conv1.weight.data = narrow.conv1.weight.data[:-1]
    gate = sp.verify(model, narrow, plan, X, trained=True)
    assert re.search(r"weights: conv1.weight is \(.*\) in the slim network, and the plan makes it", gate.reasons()[-1])
    with pytest.raises(RecipeError, match="trained='yes': give True or False"):
        sp.verify(model, slim, plan, X, trained="yes")


def test_recovered_networks_pass(tmp_path):
    model, plan, slim = _cut()
    done = sp.recover(model, slim, plan, torch.randn(32, 3, 10, 10), ["means", "least_squares"]).model
    assert sp.verify(model, done, plan, X, trained=True).passed
    sp.save(done, plan, tmp_path)
    assert sp.verify(model, sp.load(tmp_path), plan, X, trained=True).passed


def test_cut_trained_and_cut_again():
    """Each cut is proven against the network that it was made on, and both against the dense one."""
    model, first, once = _cut()
    _train(once)
    second, twice = pruned(once, X[:1], 0.8)
    assert sp.verify(once, twice, second, X).passed
    both = first.then(second)
    gate = sp.verify(model, twice, both, X, trained=True)
    assert gate.passed, gate.reasons()
    assert not sp.verify(model, twice, both, X).passed
