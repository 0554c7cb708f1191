"""Nothing stays without a reason: each layer's channels are in a group, or a barrier or `reasons` says why not."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import structprune as sp
from structprune.graph.barriers import NOT_MADE, UNKNOWN
from structprune.suites.equality import assert_slim_equals_masked
from structprune.suites.random_networks import BLOCKS, SIZE, RandomNet

IMAGES = torch.randn(2, 3, 8, 8)
NO_BARRIER = (
    "the network's output",
    "its only position",
    "the only channel of a layer",
    "not used in this forward pass",
)


def assert_all_explained(graph):
    """Each position of each layer's filters is in a group or has a reason; and if that is no trivial one, a barrier."""
    assert UNKNOWN not in graph.reasons.values()
    for path, module in graph.model.named_modules():
        if not isinstance(module, (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding)):
            continue
        key = f"{path}.weight".lstrip(".")
        dim = int(isinstance(module, nn.Embedding) or getattr(module, "transposed", False))
        if dim and getattr(module, "groups", 1) > 1 and (key, 1) not in graph.blocked:
            dim = 0  # whole blocks go
        held = np.zeros(module.weight.shape[dim], bool)
        for group in graph.groups:
            for s in group.slices:
                if (s.key, s.dim) == (key, dim):
                    held |= (s.index >= 0).any(axis=1).reshape(-1, len(held)).any(axis=0)
        if held.all() or key not in dict(graph.model.named_parameters()):
            continue
        reason = graph.reasons[key, dim]
        assert reason != NOT_MADE
        assert reason in NO_BARRIER or any(b.channels for b in graph.barriers), (key, reason)


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block(name):
    torch.manual_seed(0)
    model = RandomNet([("Plain", 6), (name, 8)], "flatten").eval()
    for form in ("module", "graph"):
        assert_all_explained(sp.trace(model, torch.randn(1, 3, SIZE, SIZE), form=form))


class Between(nn.Module):
    """A convolution, 3 to 8 channels, what comes between, and another that makes the output."""

    def __init__(self, function, kept=8, layer=None):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(kept, 4, 1)
        self.function, self.layer = function, layer

    def forward(self, x):
        x = self.a(x)
        return self.b(self.function(x if self.layer is None else (x, self.layer)))


STAY = {
    "numbered": lambda x: x[:, [3, 1, 2, 0, 4, 5, 6, 7]],
    "mixed along the channels": lambda x: torch.fft.fft(x, dim=1).real,
    "rolled": lambda x: x.roll(1),
    "one by one": lambda x: torch.stack([t * i for i, t in enumerate(x.unbind(1))], 1),
    "sorted": lambda x: x.sort(1)[0],
    "no rule": lambda x: torch.renorm(x, 2, 1, 0.5),
    "out": lambda x: torch.mul(x, 2, out=torch.empty_like(x)),
    "groups by number": lambda x: F.group_norm(x, 8),
    "a constant for each": lambda x: x * torch.arange(8.0).view(-1, 1, 1),
    "all one": lambda x: x * x.new_ones(8, 1, 1) if len(x) < 0 else x.flatten(1).cumsum(1).view_as(x),
}


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize("name", STAY)
def test_what_stays_says_why(name, form):
    graph = sp.trace(Between(STAY[name]).eval().requires_grad_(False), IMAGES, form=form)
    assert_all_explained(graph)
    if not graph.groups:
        assert graph.barriers
    else:
        assert (name, form) == ("groups by number", "graph")
    assert graph.reasons["b.weight", 0] == "the network's output"


def test_layers_that_stay_whole():
    graph = sp.trace(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)).eval(), IMAGES)
    assert graph.whole_layers == {"2": "the network's output"}
    graph = sp.trace(Between(STAY["rolled"]).eval(), IMAGES)
    assert graph.whole_layers == {
        "a": "depends on the order of the channels themselves",
        "b": "the network's output",
    }


def test_layers_of_two_inputs_and_bags_that_have_no_rule():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag, self.a = nn.EmbeddingBag(10, 8, mode="sum"), nn.Linear(8, 6)
            self.both, self.head = nn.Bilinear(6, 6, 5), nn.Linear(5, 2)

        def forward(self, x):
            x = self.a(self.bag(x))
            return self.head(self.both(x, x.relu()))

    graph = sp.trace(Pair().eval(), torch.randint(0, 10, (2, 4)))
    assert {b.op for b in graph.barriers} >= {"embedding_bag", "bilinear"}
    assert set(graph.whole_layers) >= {"bag", "a", "both", "head"}


def test_outputs_and_inputs_say_what_they_are():
    graph = sp.trace(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1), nn.Conv2d(1, 4, 1)).eval(), IMAGES)
    assert [group.name for group in graph.groups] == ["0"]
    assert not graph.barriers
    assert graph.reasons["1.weight", 0] == "its only position"
    assert graph.reasons["2.weight", 0] == "the network's output"
    assert "nothing can be removed" in graph.reasons["0.weight", 1]


def _quantised(prepare, config):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.qconfig = config("x86")
        return prepare(model.train(prepare is quantization.prepare_qat))


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize(
    ("prepare", "config"),
    [
        (quantization.prepare, quantization.get_default_qconfig),
        (quantization.prepare_qat, quantization.get_default_qat_qconfig),
    ],
)
def test_observers_keep_what_they_watch(prepare, config, form):
    graph = sp.trace(_quantised(prepare, config).eval(), IMAGES, form=form)
    assert_all_explained(graph)
    assert not graph.groups
    assert max(barrier.channels for barrier in graph.barriers) == 8


@pytest.mark.parametrize("parametrise", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_weights_that_stay(parametrise):
    model = nn.Sequential(parametrise(nn.Conv2d(3, 8, 1)), nn.Flatten(), nn.Unflatten(1, (8, 8, 8)), nn.Conv2d(8, 2, 1))
    assert_all_explained(sp.trace(model.eval(), IMAGES))
    model = Between(lambda x: x.roll(1))
    parametrise(model.a)
    graph = sp.trace(model.eval(), IMAGES)
    assert_all_explained(graph)
    assert max(barrier.channels for barrier in graph.barriers) == 8


def test_an_embedding_alone_makes_channels():
    model = nn.Sequential(nn.Embedding(10, 8), nn.GELU(), nn.Linear(8, 3))
    graph = assert_slim_equals_masked(model, torch.randint(0, 10, (2, 6)))
    assert [(group.name, group.units, group.leading.key) for group in graph.groups] == [("0", 8, "0.weight")]
    for criterion in ("l1", "l2", "group_l1", "fpgm", "random", "variance"):
        data = torch.randint(0, 10, (8, 6))
        scores = sp.score(graph, criterion, data)
        assert len(scores.values.get("0", [])) == 8 or scores.unscored, criterion
