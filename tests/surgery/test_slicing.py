"""Surgery: the user's own module comes back smaller, trainable, with its keys; the dense one stays whole."""

import copy

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import PlanError
from tests.example_networks import Chain, LeNet, TwoInputs, pruned, randomise

X = torch.randn(2, 3, 10, 10)


def test_shapes_attributes_keys_and_class_by_hand():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    a, b = (len(plan.groups[name]["kept"]) for name in ("conv1", "conv2"))
    assert type(slim) is Chain
    assert list(slim.state_dict()) == list(model.state_dict())
    assert tuple(slim.conv1.weight.shape) == (a, 3, 3, 3)
    assert tuple(slim.conv2.weight.shape) == (b, a, 1, 1)
    assert tuple(slim.fc.weight.shape) == (5, b)
    assert (slim.conv1.out_channels, slim.bn1.num_features, slim.conv2.in_channels) == (a, a, a)
    assert (slim.conv2.out_channels, slim.fc.in_features, slim.fc.out_features) == (b, b, 5)
    kept = plan.groups["conv1"]["kept"]
    assert torch.equal(slim.bn1.running_mean, model.bn1.running_mean[kept])
    assert torch.equal(slim.conv1.weight, model.conv1.weight[kept])


def test_the_dense_model_is_left_as_it_was_and_shares_nothing():
    model = randomise(Chain()).train()
    before = copy.deepcopy(model.state_dict())
    _, slim = pruned(model, X[:1])
    assert slim.training
    with torch.no_grad():
        for tensor in slim.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert model.conv1.out_channels == 8


def test_the_slim_model_trains():
    _, slim = pruned(randomise(Chain()), X[:1])
    slim.train()
    mean = slim.bn1.running_mean.clone()
    optimizer = torch.optim.SGD(slim.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(slim(X), torch.tensor([0, 3]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert not torch.equal(mean, slim.bn1.running_mean)


def test_frozen_parameters_stay_frozen_and_tied_ones_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
            self.c.weight = self.b.weight
            self.a.weight.requires_grad_(False)
            self.head = nn.Conv2d(6, 2, 1)

        def forward(self, x):
            return self.head(self.c(torch.relu(self.b(self.a(x)))))

    model = Tied()
    plan, slim = pruned(model, X[:1])
    assert slim.c.weight is slim.b.weight
    assert not slim.a.weight.requires_grad
    assert slim.b.weight.shape[0] == len(plan.groups["a"]["kept"])
    assert sp.verify(model, slim, plan, X).passed


def test_a_plan_for_another_model_is_refused_and_nothing_changes():
    plan, slim = pruned(randomise(Chain()), X[:1])
    with pytest.raises(PlanError, match=r"slices conv1\.weight of shape \[8, 3, 3, 3\], but here its shape is"):
        sp.prune(slim, plan)
    with pytest.raises(PlanError, match="which Sequential does not have"):
        sp.prune(nn.Sequential(nn.Conv2d(3, 8, 1)), plan)
    plan.keep["conv1.weight"]["0"] = [0, 99]
    model = Chain()
    with pytest.raises(PlanError, match=r"impossible indices of axis 0 of conv1\.weight"):
        sp.prune(model, plan)
    assert model.conv1.weight.shape[0] == 8


@pytest.mark.parametrize("how", ["flatten", "shape", "number"])
def test_lenet_runs_and_passes_the_gate(how):
    model = LeNet(how)
    x = torch.randn(3, 1, 32, 32)
    plan, slim = pruned(model, x[:1], 0.5)
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    assert slim(x).shape == (3, 10)


def test_two_inputs_and_a_dict_of_outputs():
    model = TwoInputs()
    inputs = {"depth": torch.randn(2, 2, 4, 4), "image": torch.randn(2, 3, 4, 4)}
    plan, slim = pruned(model, inputs, 0.6)
    gate = sp.verify(model, slim, plan, inputs)
    assert gate.passed, gate.reasons()
    assert slim(**inputs)["map"].shape == (2, 4, 4, 4)
