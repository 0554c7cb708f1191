"""Recovery of a network whose channels were merged: what its layers are held to, against values worked out by hand."""

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.calibration import WritableNetwork
from structprune.ops import Inputs
from structprune.recover.slim_outputs import slim_outputs
from tests.example_networks import randomise

DATA = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Linear(nn.Module):
    """Nothing in it is not linear, so that means go through it."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1)
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return self.last(self.second(self.norm(self.first(x))))


class Curved(Linear):
    def forward(self, x):
        return self.last(self.second(self.norm(self.first(x)).relu()).relu())


def merged_network(kind, channels=0.5):
    torch.manual_seed(0)
    model = randomise(kind())
    graph = sp.trace(model, DATA[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": channels}, align=1, surgery="merge")
    return model, plan, sp.prune(model, plan)


def error(model, slim):
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(11))
    with torch.no_grad():
        return float((slim(x) - model(x)).square().mean() / model(x).var())


@torch.no_grad()
def test_a_merged_channel_is_to_make_the_mean_of_what_all_made():
    model, plan, slim = merged_network(Linear)
    dense, here = (WritableNetwork.of(network, Inputs.of(DATA[:1])) for network in (model, slim))
    layer = next(layer for layer in here.layers if layer.weight == "first.weight")
    y = model.first(DATA).movedim(1, -1).reshape(-1, 8)
    wanted = slim_outputs(layer, dense, here, plan, y)
    through = wanted.reshape(64, 8, 8, -1).movedim(-1, 1).float()
    into = plan.merges["groups"]["first"]
    outputs = model.norm(model.first(DATA))
    means = [outputs[:, [i for i in range(8) if into[i] == kept]].mean(1) for kept in plan.groups["first"]["kept"]]
    torch.testing.assert_close(slim.norm(through), torch.stack(means, 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [Linear, Curved])
@torch.no_grad()
def test_means_make_up_for_what_members_differ_by(kind):
    """Layer by layer, so that the last layer's outputs have the dense network's means, whatever is on the way."""
    model, plan, slim = merged_network(kind)
    recovered = sp.recover(model, slim, plan, DATA, ["means"])
    assert recovered.layers == [2]
    wanted = model(DATA).mean((0, 2, 3))
    torch.testing.assert_close(recovered.model(DATA).mean((0, 2, 3)), wanted, atol=1e-4, rtol=1e-4)


def test_least_squares_goes_on_from_the_sums_of_columns():
    model, plan, slim = merged_network(Curved)
    mended = sp.recover(model, slim, plan, DATA, ["means", "least_squares"]).model
    assert error(model, mended) < 0.7 * error(model, slim)
    assert sp.verify(model, mended, plan, DATA[:2], trained=True).passed


def test_nothing_is_lost_where_nothing_was():
    model, plan, _ = merged_network(Curved)
    with torch.no_grad():
        for key, merged in plan.merges["groups"].items():  # members become what they are merged into
            for tensor in [getattr(model, key).weight, *([getattr(model, key).bias] if key == "second" else [])]:
                tensor.copy_(tensor[merged])
        for tensor in (*model.norm.parameters(), model.norm.running_mean, model.norm.running_var):
            tensor.copy_(tensor[plan.merges["groups"]["first"]])
    slim = sp.prune(model, plan)
    assert error(model, slim) < 1e-10
    assert error(model, sp.recover(model, slim, plan, DATA, ["means", "least_squares"]).model) < 1e-6
