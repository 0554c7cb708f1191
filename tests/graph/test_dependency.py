"""Groups, barriers and MACs against what paper and fvcore say."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import ModelError
from structprune.graph import count_group, rule
from structprune.graph.attributes import slim_attributes
from structprune.graph.removal import kept_positions
from structprune.ops.record import OPS
from structprune.report import count_macs
from tests.example_networks import Chain, LeNet, TwoInputs


def _slices(group):
    return {(s.key, s.dim, s.role) for s in group.slices}


def test_groups_of_a_chain():
    graph = sp.trace(Chain(), torch.randn(1, 3, 10, 10))
    assert [(g.name, g.units, g.channels, g.exact) for g in graph.groups] == [
        ("conv1", 8, 8, True),
        ("conv2", 6, 6, True),
    ]
    assert _slices(graph.group("conv1")) == {
        ("conv1.weight", 0, "filter"),
        ("bn1.weight", 0, "norm"),
        ("bn1.bias", 0, "norm"),
        ("bn1.running_mean", 0, "norm"),
        ("bn1.running_var", 0, "norm"),
        ("conv2.weight", 1, "consumer"),
    }
    assert _slices(graph.group("conv2")) == {
        ("conv2.weight", 0, "filter"),
        ("conv2.bias", 0, "bias"),
        ("fc.weight", 1, "consumer"),
    }
    assert not graph.barriers


def test_macs_and_parameters_of_a_chain_by_hand():
    graph = sp.trace(Chain(), torch.randn(1, 3, 10, 10))
    assert graph.macs_by_operator() == {"conv": 100 * 3 * 9 * 8 + 100 * 8 * 6, "linear": 6 * 5}
    assert graph.params() == 3 * 9 * 8 + 2 * 8 + (8 * 6 + 6) + (6 * 5 + 5)
    kept = {"conv1": np.arange(5), "conv2": np.arange(2)}
    assert graph.macs_by_operator(kept) == {"conv": 100 * 3 * 9 * 5 + 100 * 5 * 2, "linear": 2 * 5}
    assert graph.params(kept) == 3 * 9 * 5 + 2 * 5 + (5 * 2 + 2) + (2 * 5 + 5)
    assert count_group(graph, graph.group("conv1"))["macs"] == 100 * 3 * 9 * 8 + 100 * 8 * 6  # all of both convolutions
    assert count_group(graph, graph.group("conv1"))["params"] == 3 * 9 * 8 + 2 * 8 + 8 * 6


def test_keep_and_attributes_by_hand():
    graph = sp.trace(Chain(), torch.randn(1, 3, 10, 10))
    kept = {"conv1": np.array([0, 3, 7])}
    assert kept_positions(graph, kept) == {
        "conv1.weight": {"0": [0, 3, 7]},
        "bn1.weight": {"0": [0, 3, 7]},
        "bn1.bias": {"0": [0, 3, 7]},
        "bn1.running_mean": {"0": [0, 3, 7]},
        "bn1.running_var": {"0": [0, 3, 7]},
        "conv2.weight": {"1": [0, 3, 7]},
    }
    assert slim_attributes(graph, kept) == {
        "conv1": {"out_channels": 3},
        "bn1": {"num_features": 3},
        "conv2": {"in_channels": 3},
    }


def test_flatten_keeps_a_channel_s_pixels_together():
    graph = sp.trace(LeNet("flatten"), torch.randn(1, 1, 32, 32))
    keep = kept_positions(graph, {"conv2": np.array([1, 15])})
    assert keep["fc1.weight"]["1"] == [*range(25, 50), *range(375, 400)]


def test_concatenation_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(9, 5, 1)

        def forward(self, x):
            return self.c(torch.cat([self.a(x), x, self.b(x)], 1))

    graph = sp.trace(Net(), torch.randn(1, 3, 4, 4))
    assert {g.name: g.units for g in graph.groups} == {"a": 4, "b": 2}
    keep = kept_positions(graph, {"a": np.array([0, 2]), "b": np.array([1])})
    assert keep["c.weight"] == {"1": [0, 2, 4, 5, 6, 8]}


def test_projection_shortcut_leads_its_stage():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.conv1, self.conv2 = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
            self.shortcut, self.head = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.head(F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x)))

    graph = sp.trace(Block(), torch.randn(1, 3, 6, 6))
    assert [g.name for g in graph.groups] == ["stem", "conv1", "shortcut"]
    stage = graph.group("shortcut")
    assert stage.leading.key == "shortcut.weight"
    assert ("conv2.weight", 0, "filter") in _slices(stage)


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs", "units", "kept", "groups_after"),
    [
        (12, 12, 12, 12, [0, 2, 5], 3),
        (12, 12, 24, 12, [0, 2, 5], 3),
        (6, 12, 24, 6, [0, 2, 5], 3),
        (2, 12, 24, 12, [0, 2, 5, 6, 7, 11], 2),
    ],
    ids=["depthwise", "depthwise multiplier", "many blocks", "wide blocks"],
)
def test_grouped_convolutions(groups, inputs, outputs, units, kept, groups_after):
    model = nn.Sequential(
        nn.Conv2d(3, inputs, 1), nn.Conv2d(inputs, outputs, 3, groups=groups), nn.Conv2d(outputs, 2, 1)
    )
    graph = sp.trace(model, torch.randn(1, 3, 6, 6))
    assert graph.groups[0].units == units
    kept = {graph.groups[0].name: np.array(kept)}
    plan = _plan(graph, kept)
    slim = sp.prune(model, plan)
    assert slim[1].groups == groups_after
    if groups == 2:  # each block chooses its own inputs
        assert plan.keep["1.weight"] == {"1": [[0, 2, 5], [0, 1, 5]]}
        assert torch.equal(slim[1].weight[12:], model[1].weight[12:, [0, 1, 5]])
    assert slim(torch.randn(2, 3, 6, 6)).shape == (2, 2, 4, 4)
    assert count_macs(slim, torch.randn(1, 3, 6, 6)) == graph.macs_by_operator(kept)


def _plan(graph, kept):
    scores = {g.name: np.isin(np.arange(g.units), kept.get(g.name, np.arange(g.units))) for g in graph.groups}
    target = graph.macs(kept) / graph.macs()
    scores = sp.score(graph, lambda group: torch.from_numpy(scores[group.name].astype(float)))
    plan = sp.plan(graph, scores, {"macs": target}, allocation="global", max_ratio=1.0, align=1)
    assert plan.macs["slim"] == graph.macs(kept)
    return plan


def test_unknown_op_is_a_barrier_with_its_module_and_reason():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.odd, self.head = nn.Conv2d(3, 8, 1), Odd(), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.head(self.odd(self.conv(x)))

    class Odd(nn.Module):
        def forward(self, x):
            return torch.erfinv(x)

    graph = sp.trace(Net(), torch.randn(1, 3, 4, 4))
    assert not graph.groups
    (barrier,) = graph.barriers
    assert (barrier.op, barrier.module, barrier.channels) == ("erfinv", "odd", 8)
    assert "no rule for erfinv" in barrier.reason


@pytest.mark.parametrize(
    ("mix", "reason"),
    [
        (lambda x: x.cumsum(1), "order of the channels"),
        (lambda x: x.mean(1, keepdim=True).expand(-1, 8, -1, -1) + x, "number in the model's code"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 0, 0))[:, :8] + F.pad(x[:, :4], (0, 0, 0, 0, 4, 0)), "can't go with them"),
        (lambda x: x.view(2, 2, 4, 4, 4).transpose(1, 2).reshape(2, 8, 4, 4), "invalid for input"),
        (lambda x: torch.cat([x[:, :7], x[:, 7:]], 1) + torch.cat([x[:, :1], x[:, 1:]], 1), "number in the model"),
        (lambda x: torch.cat([x[:, 4:], x[:, :4]], 1), "number in the model's code"),
        (lambda x: x[:, 7:8] * x, "number in the model's code"),
        (lambda x: F.avg_pool1d(x.flatten(2).transpose(1, 2), 1).transpose(1, 2).reshape(x.shape), "mixes positions"),
        (lambda x: x * x[:, 1].unsqueeze(1), "picks one channel"),
    ],
)  # fmt: skip
def test_what_is_not_understood_keeps_its_channels(mix, reason):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.head(mix(self.conv(x)))

    graph = sp.trace(Net(), torch.randn(2, 3, 4, 4))
    assert "conv" not in [g.name for g in graph.groups]
    import re

    assert any(re.search(reason, barrier.reason) for barrier in graph.barriers), graph.barriers


@pytest.mark.parametrize("how", ["flatten", "shape", "number"])
def test_view_by_a_number_is_a_barrier_and_by_a_width_is_not(how):
    graph = sp.trace(LeNet(how), torch.randn(1, 1, 32, 32))
    names = [g.name for g in graph.groups]
    if how == "number":
        assert names == ["conv1", "fc1"]
        (barrier,) = graph.barriers
        assert (barrier.op, barrier.channels) == ("view", 16)
    else:
        assert names == ["conv1", "conv2", "fc1"]
        assert not graph.barriers


def test_keyword_inputs_and_dict_outputs():
    model = TwoInputs()
    inputs = {"depth": torch.randn(2, 2, 4, 4), "image": torch.randn(2, 3, 4, 4)}
    graph = sp.trace(model, inputs)
    assert [(g.name, g.units) for g in graph.groups] == [("a", 8)]
    assert {s.key for s in graph.groups[0].slices if s.role == "filter"} == {"a.weight", "b.weight"}


def test_tracing_leaves_the_model_as_it_was():
    model = Chain().train()
    model.bn1.eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    sp.trace(model, torch.randn(1, 3, 10, 10))
    assert model.training
    assert not model.bn1.training
    assert not model.conv1._forward_hooks
    assert not model.conv1._forward_pre_hooks
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_a_model_that_fails_says_so():
    with pytest.raises(ModelError, match=r"Chain could not run on its example input of shape \(1, 4, 10, 10\)"):
        sp.trace(Chain(), torch.randn(1, 4, 10, 10))
    with pytest.raises(ModelError, match="example_inputs is a str"):
        sp.trace(Chain(), "an image")


def test_a_second_rule_for_an_op_raises():
    with pytest.raises(ValueError, match="relu has a rule already"):
        rule("relu")(OPS["relu"].rule)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100", "densenet121", "regnetx_002"])
def test_planned_macs_equal_fvcore_s_count(name):
    import timm

    model = timm.create_model(name).eval()
    x = torch.randn(1, 3, 64, 64)
    graph = sp.trace(model, x)
    assert count_macs(model, x) == graph.macs_by_operator()
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.4}, align=1)
    slim = sp.prune(model, plan)
    assert count_macs(slim, x) == plan.macs_by_operator["slim"]
    assert 0.99 * 0.4 <= plan.macs["slim"] / plan.macs["dense"] <= 0.4
    assert sum(p.numel() for p in slim.parameters()) == plan.params["slim"]


def test_a_forward_that_differs_each_time_is_an_error():
    class Fickle(nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            Fickle.calls += 1
            return self.b(self.a(x if Fickle.calls > 1 else x + 1))

    with pytest.raises(ModelError, match="forward is not the same twice"):
        sp.trace(Fickle(), torch.randn(1, 3, 4, 4))


def test_code_that_checks_a_width_is_a_barrier():
    class Strict(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)

        def forward(self, x):
            x = torch.relu(self.a(x))
            if x.shape[1] != 8:
                raise ValueError("eight channels, please")
            return self.c(self.b(x))

    graph = sp.trace(Strict(), torch.randn(1, 3, 4, 4))
    assert [g.name for g in graph.groups] == ["b"]
    assert "eight channels, please" in graph.barriers[0].reason


def test_a_constant_that_is_nan_is_the_same_at_every_width():
    class Filled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            x = self.a(x)
            return self.b(x.masked_fill(x > 1e9, float("nan")))

    graph = sp.trace(Filled(), torch.randn(1, 3, 4, 4))
    assert [g.name for g in graph.groups] == ["a"]
    assert not graph.barriers
