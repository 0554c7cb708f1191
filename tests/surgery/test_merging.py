"""What merging makes of weights: against networks in which it loses nothing, and against tied networks by hand."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.plan.merging import merge
from structprune.suites.equality import random_plan
from structprune.suites.random_networks import Case
from structprune.surgery import merged
from structprune.verify.tied_reference import tied
from tests.example_networks import randomise

X = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """conv, BatchNorm, PReLU; depthwise, BatchNorm; a layer scale; a projection. 8 channels, in pairs."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8)
        self.depthwise, self.bn2 = nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8)
        self.scale, self.out = nn.Parameter(torch.rand(8, 1, 1)), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.act(self.bn(self.conv(x)))
        return self.out(F.relu(self.bn2(self.depthwise(x))) * self.scale).mean((2, 3))


PAIRS = [0, 1, 2, 3, 0, 1, 2, 3]


def plan_of_pairs(model):
    graph = sp.trace(model, X[:1])
    scores = sp.score(graph, lambda group: torch.tensor([4.0, 3, 2, 1] * 2) + torch.tensor([1.0] * 4 + [0.0] * 4) * 9)
    plan = sp.plan(graph, scores, {"channels": 0.5}, align=1, surgery="merge")
    return plan


def paired(model):
    """Gives the second half of the channels what the first half has, but for the consumers' columns."""
    for name, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        if tensor.dim() and len(tensor) == 8:
            tensor.data[4:] = tensor.data[:4]
            assert name != "out.weight"
    return model


def test_duplicates_merge_without_loss():
    model = paired(randomise(Net()))
    plan = plan_of_pairs(model)
    assert plan.merges["groups"] == {"conv": PAIRS}
    slim = sp.prune(model, plan)
    torch.testing.assert_close(slim(X), model(X), atol=1e-5, rtol=1e-5)
    dropped = sp.prune(
        model, sp.plan(sp.trace(model, X[:1]), sp.score(sp.trace(model, X[:1]), "l1"), {"channels": 0.5})
    )
    assert (dropped(X) - model(X)).abs().max() > 1e-2


def test_channels_that_differ_by_what_a_batchnorm_takes_back_merge_without_loss():
    """Scaled filters behind BatchNorms that scale the other way compute the same: their plain means would not."""
    model = paired(randomise(Net()))
    plan = plan_of_pairs(model)
    factors = torch.tensor([1.0] * 4 + [3.0, -0.5, 7.0, 0.1])
    with torch.no_grad():
        model.conv.weight *= factors.reshape(-1, 1, 1, 1)
        model.conv.bias *= factors
        model.bn.running_mean *= factors
        model.bn.weight *= factors.sign()
        model.bn.running_var.copy_((model.bn.running_var + model.bn.eps) * factors**2 - model.bn.eps)
    before = model(X)
    assert plan.merges["groups"] == {"conv": PAIRS}
    torch.testing.assert_close(sp.prune(model, plan)(X), before, atol=1e-5, rtol=1e-5)


def test_what_stays_alone_keeps_its_numbers():
    model = randomise(Net())
    graph = sp.trace(model, X[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.75}, align=1, surgery="merge")
    into = plan.merges["groups"]["conv"]
    alone = [unit for unit in plan.groups["conv"]["kept"] if into.count(unit) == 1]
    assert len(alone) >= 4
    places = [plan.groups["conv"]["kept"].index(unit) for unit in alone]
    slim, dense = sp.prune(model, plan).state_dict(), model.state_dict()
    for key in ("conv.weight", "bn.weight", "bn.running_var", "act.weight", "depthwise.weight", "scale"):
        assert torch.equal(slim[key][places], dense[key][alone])


def test_the_model_stays_as_it_was():
    model = randomise(Net())
    before = copy.deepcopy(model.state_dict())
    plan = plan_of_pairs(model)
    sp.prune(model, plan)
    merged(model, plan)
    tied(model, plan)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def by_hand(model, into):
    """The tied network of `Net`: each channel computes the mean of what its cluster computes, layer by layer."""
    clusters = [[i for i in range(8) if into[i] == into[j]] for j in range(8)]

    def mean(tensor):
        return torch.stack([tensor[cluster].mean(0) for cluster in clusters])

    def folded(conv, bn):
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        bias = torch.zeros(8) if conv.bias is None else conv.bias
        weight, bias = conv.weight * scale.reshape(-1, 1, 1, 1), scale * (bias - bn.running_mean) + bn.bias
        return mean(weight), mean(bias)

    x = F.conv2d(X, *folded(model.conv, model.bn))
    x = F.prelu(x, mean(model.act.weight))
    weight, bias = folded(model.depthwise, model.bn2)
    x = F.relu(F.conv2d(x, weight, bias, groups=8)) * mean(model.scale)
    return model.out(x).mean((2, 3))


@torch.no_grad()
def test_slim_and_tied_network_are_the_one_worked_out_by_hand():
    model = randomise(Net())
    graph = sp.trace(model, X[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.4}, align=1, surgery="merge")
    expected = by_hand(model, plan.merges["groups"]["conv"])
    torch.testing.assert_close(tied(model, plan)(X), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sp.prune(model, plan)(X), expected, atol=1e-5, rtol=1e-5)


class PreActivated(nn.Module):
    """BatchNorms behind a sum, which have no layer of their own to take their scales."""

    def __init__(self):
        super().__init__()
        self.enter, self.bn, self.conv = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.bn2, self.out = nn.BatchNorm2d(8, affine=False), nn.Linear(8, 4)

    def forward(self, x):
        x = self.enter(x)
        x = x + self.conv(F.relu(self.bn(x)))
        return self.out(self.bn2(x).relu().mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batchnorms_without_a_layer_of_their_own(dtype):
    model = PreActivated().eval().to(dtype)
    for norm in (model.bn, model.bn2):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 1.5)
    torch.nn.init.uniform_(model.bn.weight, -1.5, 1.5)
    graph = sp.trace(model, X[:1].to(dtype))
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.5}, align=1, surgery="merge")
    assert [norm["layer"] for norm in plan.merges["norms"]] == [None]
    slim = sp.prune(model, plan)
    assert slim.bn.weight.dtype == dtype
    gate = sp.verify(model, slim, plan, X.to(dtype))
    assert gate.passed, gate.reasons()


# --- the gate ---------------------------------------------------------------------------------------------------------


def test_the_gate_fails_for_other_sums_and_means():
    model = randomise(Net())
    plan = plan_of_pairs(model)
    for key in ("out.weight", "conv.weight", "bn.running_var"):
        slim = sp.prune(model, plan)
        slim.state_dict()[key].mul_(1.01)
        gate = sp.verify(model, slim, plan, X)
        assert not gate.passed
        assert not gate.float64.passed
        assert any(key in reason for reason in gate.reasons())


@pytest.mark.parametrize(("key", "by"), [("out.weight", "mean"), ("act.weight", "sum")])
def test_the_gate_fails_for_a_plan_that_averages_what_is_to_be_added_up(key, by):
    """Surgery and plan agree here: only the network that is tied by hand tells that they are wrong."""
    model = randomise(Net())
    plan = plan_of_pairs(model)
    axis = "1" if key == "out.weight" else "0"
    plan.merges["axes"][key][axis]["by"] = by
    gate = sp.verify(model, sp.prune(model, plan), plan, X)
    assert not gate.passed
    assert "the network whose merged channels are tied differs" in gate.float64.detail


def test_a_slim_network_that_was_trained_since_passes_as_such():
    model = randomise(Net())
    plan = plan_of_pairs(model)
    slim = sp.prune(model, plan)
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assert not sp.verify(model, slim, plan, X).passed
    gate = sp.verify(model, slim, plan, X, trained=True)
    assert gate.passed, gate.reasons()


def test_a_network_that_was_cut_by_dropping_fails():
    model = randomise(Net())
    plan = plan_of_pairs(model)
    gate = sp.verify(model, sp.prune(model, dataclasses.replace(plan, merges=None)), plan, X)
    assert not gate.passed
    assert "not those of the dense network at the plan's positions" in gate.reasons()[-1]


# Blocks of all kinds in both forms: grouped, shuffled, transposed, gated, split, recurrent, with attention.
SEEDS = [0, 2, 6, 9, 11]
MORE = [seed for seed in range(32) if seed not in SEEDS]


@pytest.mark.parametrize("seed", [*SEEDS, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MORE)])
def test_random_networks_go_through_the_gate(seed):
    case = Case.random(seed)
    model, x = case.build()
    randomise(model)
    graph = sp.trace(model, x, form=case.form)
    drops = random_plan(graph, seed)
    plan = merge(graph, drops)
    assert (plan.macs, plan.params, plan.widths) == (drops.macs, drops.params, drops.widths)
    slim = sp.prune(model, plan)
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    assert gate.onnx.passed or gate.onnx.state == "not compared"
