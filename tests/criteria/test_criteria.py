"""Every criterion against its definition written out again, and one contract for all of them."""

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.criteria import CRITERIA
from structprune.errors import ModelError, RecipeError
from tests.toys import Chain, randomise

X = torch.randn(1, 3, 10, 10)


class Coupled(nn.Module):
    """Two producing layers, a depthwise one and two consumers of the same channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.long1, self.long2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 6, 1)
        self.short, self.depthwise, self.out = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.out(self.depthwise(self.long2(self.long1(x)) + self.short(x)))


def test_l1_is_the_sum_of_absolute_weights_of_the_leading_layer():
    model = Coupled()
    scores = sp.score(sp.trace(model, X), "l1")
    expected = [sum(abs(w) for w in model.short.weight[j].flatten().tolist()) for j in range(6)]
    np.testing.assert_allclose(scores.values["short"], expected, rtol=1e-6)


def test_group_l1_adds_every_coupled_filter_and_kernel():
    model = Coupled()
    scores = sp.score(sp.trace(model, X), "group_l1")
    expected = [
        torch.Tensor.item(
            model.short.weight[j].abs().sum()
            + model.long2.weight[j].abs().sum()
            + model.depthwise.weight[j].abs().sum()
            + model.out.weight[:, j].abs().sum()
        )
        for j in range(6)
    ]
    np.testing.assert_allclose(scores.values["short"], expected, rtol=1e-6)


def test_l1_sums_over_the_filters_of_a_block():
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=6), nn.Conv2d(12, 2, 1))
    scores = sp.score(sp.trace(model, X), "l1")
    expected = model[0].weight.detach().abs().flatten(1).sum(1).reshape(6, 2).sum(1)
    np.testing.assert_allclose(scores.values["0"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(CRITERIA))
class TestContract:
    def test_shape_finite_and_weights_untouched(self, name):
        model = randomise(Coupled())
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        graph = sp.trace(model, X)
        scores = sp.score(graph, name)
        assert {g.name: (g.units,) for g in graph.groups} == {k: v.shape for k, v in scores.values.items()}
        assert all(np.isfinite(v).all() for v in scores.values.values())
        assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())

    def test_deterministic(self, name):
        graph = sp.trace(Coupled(), X)
        first, second = sp.score(graph, name), sp.score(graph, name)
        assert all(np.array_equal(first.values[k], second.values[k]) for k in first.values)

    def test_equivariant_under_a_permutation_of_channels(self, name):
        model = randomise(Chain())
        before = sp.score(sp.trace(model, X), name).values["conv1"]
        order = torch.randperm(8)
        with torch.no_grad():
            for tensor in (model.conv1.weight, model.bn1.weight, model.bn1.bias):
                tensor.copy_(tensor[order].clone())
            for tensor in (model.bn1.running_mean, model.bn1.running_var):
                tensor.copy_(tensor[order].clone())
            model.conv2.weight.copy_(model.conv2.weight[:, order].clone())
        after = sp.score(sp.trace(model, X), name).values["conv1"]
        np.testing.assert_allclose(after, before[order.numpy()], rtol=1e-6)


def test_a_function_serves_as_a_criterion():
    graph = sp.trace(Chain(), X)

    def bias_size(group):
        weights = next(w for w in group.weights if w.role in ("norm", "bias"))
        return group.per_unit(weights, weights.tensor.abs())

    scores = sp.score(graph, bias_size)
    assert scores.criterion == "bias_size"
    np.testing.assert_allclose(scores.values["conv2"], graph.model.conv2.bias.detach().abs(), rtol=1e-6)


def test_errors_say_what_is_wrong():
    model = Chain()
    graph = sp.trace(model, X)
    with pytest.raises(RecipeError, match=r"unknown criterion 'l11': did you mean l1"):
        sp.score(graph, "l11")
    with pytest.raises(RecipeError, match=r"gave shape \(3,\) for group conv1, which has 8 units"):
        sp.score(graph, lambda group: torch.zeros(3))
    with torch.no_grad():
        model.conv2.weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"conv2\.weight holds NaN"):
        sp.score(graph, "l1")
    with pytest.raises(ValueError, match="registered already"):
        sp.criterion("l1", "again")(lambda group: torch.zeros(1))
