"""New weights of a slim network: drawn anew, of its own structure, at the scale of its own widths."""

import math

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import RecipeError
from structprune.models import CodeSpec
from structprune.modules import tensors
from structprune.schedules.new_weights import new_slim

FIXED = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


class Drawn(nn.Module):
    """Torch's own initialisation: uniform within ±1/√(inputs of a filter). The last scale starts at zero."""

    def __init__(self, same: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 64, 3, bias=False), nn.Conv2d(64, 64, 3, bias=False)
        self.up, self.norm = nn.ConvTranspose2d(64, 32, 2, bias=False), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 10, bias=False)
        nn.init.zeros_(self.norm.weight)
        if same:
            nn.init.eye_(self.head.weight)

    def forward(self, x):
        return self.head(self.norm(self.up(self.b(self.a(x).relu()).relu())).mean((2, 3)))


def slim_of(seed=7, **kwargs):
    torch.manual_seed(0)
    spec = CodeSpec(source="tests.schedules.test_new_weights:Drawn", kwargs=kwargs)
    dense, lines = Drawn(**kwargs).eval(), []
    graph = sp.trace(dense, torch.randn(1, 3, 8, 8))
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.25}, align=1)
    return dense, plan, new_slim(spec, graph, plan, seed, lines.append), lines


def test_new_weights_have_the_scale_of_the_slim_widths():
    dense, plan, slim, lines = slim_of()
    assert not lines
    cut = sp.prune(dense, plan)
    assert {key: tensor.shape for key, tensor in tensors(slim).items()} == {
        key: tensor.shape for key, tensor in tensors(cut).items()
    }
    inputs = {"a": 27, "b": 9 * slim.a.out_channels, "head": slim.norm.num_features}
    assert slim.a.out_channels < 20
    for name, count in inputs.items():
        weight = getattr(slim, name).weight
        assert not torch.equal(weight, getattr(cut, name).weight)
        largest, bound = float(weight.detach().abs().max()), 1 / math.sqrt(count)
        assert 0.9 * bound < largest <= bound * (1 + 1e-6), name
    assert float(slim.norm.weight.detach().abs().max()) == 0  # as the model's code starts it
    assert float(slim.norm.running_mean.abs().max()) == 0
    # of a transposed convolution axis 0 holds the inputs; torch counts the outputs, 4 × 32 of the dense one
    largest = float(slim.up.weight.detach().abs().max()) / math.sqrt(64 / slim.up.in_channels)
    assert 0.9 / math.sqrt(128) < largest <= (1 + 1e-6) / math.sqrt(128)


def test_new_weights_are_the_same_twice_and_others_under_another_seed():
    one, two, three = (tensors(slim_of(seed)[2]) for seed in (7, 7, 8))
    assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    assert not torch.equal(one["a.weight"], three["a.weight"])


def test_weights_that_are_no_chance_are_said_or_refused():
    assert slim_of(same=True)[3] == [
        "1 of 4 weights of tests.schedules.test_new_weights:Drawn are the same under any seed, such as head.weight"
    ]
    graph = sp.trace(FIXED, torch.randn(1, 3, 8, 8))
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)
    with pytest.raises(RecipeError, match="is built with the same weights under any seed"):
        new_slim(CodeSpec(source="tests.schedules.test_new_weights:FIXED"), graph, plan, 0, print)


def test_a_network_that_comes_with_its_weights_alone_is_refused(tmp_path):
    from structprune.models import RunSpec

    graph = sp.trace(FIXED, torch.randn(1, 3, 8, 8))
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)
    sp.save(sp.prune(FIXED, plan), plan, tmp_path)
    with pytest.raises(RecipeError, match=r"can't be built without its weights: give the model that it was cut from"):
        new_slim(RunSpec(run=str(tmp_path)), graph, plan, 0, print)
