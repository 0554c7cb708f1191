"""`roll` without dims turns the flattened tensor. No channel can go there: each hands its last place on to the next."""

import itertools

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import BudgetError
from tests.example_networks import randomise

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
WIDTH = 4


class Rolled(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 5, 3, padding=1)

    def forward(self, x):
        return self.b(torch.roll(torch.sigmoid(self.a(x)), 1))


def _cut(model, kept):
    slim = Rolled(len(kept))
    with torch.no_grad():
        slim.a.weight.copy_(model.a.weight[kept])
        slim.a.bias.copy_(model.a.bias[kept])
        slim.b.weight.copy_(model.b.weight[:, kept])
        slim.b.bias.copy_(model.b.bias)
    return slim.double()


def _masked(model, kept, biases):
    gone = [i for i in range(WIDTH) if i not in kept]
    made = Rolled().double()
    made.load_state_dict(model.state_dict())
    with torch.no_grad():
        made.a.weight[gone] = 0
        made.b.weight[:, gone] = 0
        if biases:
            made.a.bias[gone] = 0
    return made


SETS = [kept for size in range(1, WIDTH) for kept in itertools.combinations(range(WIDTH), size)]


@pytest.mark.parametrize("biases", [False, True], ids=["filters", "filters and biases"])
def test_no_set_of_channels_can_go(biases):
    model, x = randomise(Rolled()).double(), X.double()
    with torch.no_grad():
        for kept in map(list, SETS):
            expected, made = _masked(model, kept, biases)(x), _cut(model, kept)(x)
            differs = ((expected - made).abs() > 1e-6).nonzero()
            assert len(differs), kept
            assert differs[:, 2:].max() <= 1  # where the first place of a channel is read, and nowhere else
        assert torch.equal(_cut(model, list(range(WIDTH)))(x), model(x))


def test_all_channels_are_a_barrier():
    graph = sp.trace(randomise(Rolled()), X)
    assert not graph.groups
    assert any(barrier.op == "roll" for barrier in graph.barriers)
    with pytest.raises(BudgetError, match="nothing can be removed"):
        sp.plan(graph, sp.score(graph, "l1"), {"params": 0.5}, align=1)
