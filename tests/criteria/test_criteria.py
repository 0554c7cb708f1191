"""Every criterion against its definition written out again, and one contract for all of them."""

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.criteria import CRITERIA
from structprune.errors import ModelError, RecipeError
from tests.example_networks import Chain, randomise

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


def arguments(name, graph, seed=0):
    """What a criterion needs beside the graph."""
    entry, given = CRITERIA[name], {}
    if entry.needs_data:
        generator = torch.Generator().manual_seed(seed)
        given["data"] = torch.randn(24, 3, 10, 10, generator=generator)
    if "widths" in entry.needs:
        given["widths"] = {group.name: max(1, group.units // 2) for group in graph.groups}
    return given


class Normed(Coupled):
    """The same with BatchNorms, one of them shared by coupled channels, and an output of class scores."""

    def __init__(self):
        super().__init__()
        self.stem_bn, self.bn, self.after = nn.BatchNorm2d(4), nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x):
        x = self.stem_bn(self.stem(x)).relu()
        x = self.bn(self.long2(self.long1(x)) + self.short(x)).relu()
        return self.out(self.after(self.depthwise(x)).relu()).mean((2, 3))


@pytest.mark.parametrize("name", sorted(CRITERIA))
class TestContract:
    def test_shape_finite_and_weights_untouched(self, name):
        model = randomise(Normed())
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        graph = sp.trace(model, X)
        scores = sp.score(graph, name, **arguments(name, graph))
        scored = {g.name: (g.units,) for g in graph.groups if g.name not in scores.unscored}
        assert scored == {k: v.shape for k, v in scores.values.items()}
        assert "short" in scored
        assert all(np.isfinite(v).all() for v in scores.values.values())
        assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
        plan = sp.plan(graph, scores, {"channels": 0.8}, align=1)
        assert plan.widths["short"] < 6

    def test_deterministic_under_a_seed(self, name):
        graph = sp.trace(randomise(Normed()), X)
        first, second = (sp.score(graph, name, **arguments(name, graph), seed=3) for _ in range(2))
        assert all(np.array_equal(first.values[k], second.values[k]) for k in first.values)

    def test_equivariant_under_a_permutation_of_channels(self, name):
        if name == "random":
            pytest.skip("chance knows no channels")
        model = randomise(Chain())
        graph = sp.trace(model, X)
        before = sp.score(graph, name, **arguments(name, graph)).values["conv1"]
        order = torch.randperm(8)
        with torch.no_grad():
            for tensor in (model.conv1.weight, model.bn1.weight, model.bn1.bias):
                tensor.copy_(tensor[order].clone())
            for tensor in (model.bn1.running_mean, model.bn1.running_var):
                tensor.copy_(tensor[order].clone())
            model.conv2.weight.copy_(model.conv2.weight[:, order].clone())
        graph = sp.trace(model, X)
        after = sp.score(graph, name, **arguments(name, graph)).values["conv1"]
        np.testing.assert_allclose(after, before[order.numpy()], rtol=1e-4, atol=1e-9)

    def test_says_where_it_is_from(self, name):
        assert CRITERIA[name].description
        assert CRITERIA[name].source
        assert CRITERIA[name].function.__doc__


def test_l2_is_the_euclidean_norm_and_greedy_leaves_out_removed_kernels():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1))
    graph = sp.trace(model, X)
    np.testing.assert_allclose(
        sp.score(graph, "l2").values["2"], model[2].weight.detach().flatten(1).norm(dim=1), rtol=1e-6
    )
    first = sp.score(graph, "l1").values["0"]
    stays = np.argsort(-first)[:2].copy()
    greedy = sp.score(graph, "l1_greedy", widths={"0": 2, "2": 3})
    expected = model[2].weight.detach()[:, stays].abs().sum((1, 2, 3))
    np.testing.assert_allclose(greedy.values["2"], expected, rtol=1e-6)
    np.testing.assert_allclose(greedy.values["0"], first)
    assert sp.plan(graph, greedy, {"macs": 0.9}, align=1).widths == {"0": 2, "2": 3}


def test_how_scores_of_coupled_layers_are_combined():
    model = Coupled()
    graph = sp.trace(model, X)
    short, long2 = (layer.weight.detach().abs().sum((1, 2, 3)).double() for layer in (model.short, model.long2))
    expected = {
        "leading": short,
        "sum": short + long2,
        "mean": (short + long2) / 2,
        "max": torch.maximum(short, long2),
        "normalised": (short / short.mean() + long2 / long2.mean()) / 2,
    }
    for how, values in expected.items():
        np.testing.assert_allclose(sp.score(graph, "l1", combine=how).values["short"], values, rtol=1e-6)
    with pytest.raises(RecipeError, match="nothing to combine"):
        sp.score(graph, "group_l1", combine="sum")
    with pytest.raises(RecipeError, match="unknown way to combine 'maximum': did you mean max"):
        sp.score(graph, "l1", combine="maximum")


def test_fpgm_by_brute_force_and_the_mix_in_the_published_order():
    model = nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 2, 1))
    graph = sp.trace(model, X)
    filters = model[0].weight.detach().flatten(1).double()
    expected = [sum(float((a - b).norm()) for b in filters) for a in filters]
    np.testing.assert_allclose(sp.score(graph, "fpgm").values["0"], expected, rtol=1e-6)
    mix = sp.score(graph, "fpgm_mix", widths={"0": 1}).values["0"]  # 8 go: 2 by norm, 6 by distance
    by_norm = np.argsort(filters.norm(dim=1).numpy())[:2]
    left = [i for i in range(9) if i not in by_norm]
    distance = {i: sum(float((filters[i] - filters[j]).norm()) for j in left) for i in left}
    assert np.argsort(mix)[:8].tolist() == [*by_norm, *sorted(left, key=distance.get)[:6]]


def test_slimming_keeps_what_is_strictly_over_the_percentile_of_hand_made_scales():
    model = nn.Sequential(
        nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1)
    )
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.9, -0.8, 0.001, 0.0, 0.3]))
        model[4].weight.copy_(torch.tensor([0.2, 0.1, 0.1, 0.05, -0.4]))
    graph = sp.trace(model, X)
    scores = sp.score(graph, "slimming")
    plan = sp.plan(graph, scores, {"channels": 0.4}, allocation="threshold", align=1)
    assert {name: group["kept"] for name, group in plan.groups.items()} == {"0": [0, 1, 4], "3": [4]}
    capped = sp.plan(graph, scores, {"channels": 0.6}, allocation="threshold", max_ratio=0.4, align=1)
    assert capped.groups["3"]["kept"] == [0, 1, 4]
    assert not any("not sparse" in note for note in scores.notes)
    with torch.no_grad():
        for layer in (model[1], model[4]):
            layer.weight.uniform_(0.5, 1)
    assert any("not sparse" in note for note in sp.score(sp.trace(model, X), "slimming").notes)


def test_groups_that_can_not_be_scored_stay_whole_and_are_named():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)
    )
    graph = sp.trace(model, X)
    scores = sp.score(graph, "slimming")
    assert scores.unscored == {"3": "no BatchNorm scales its channels"}
    plan = sp.plan(graph, scores, {"macs": 0.8}, align=1)
    assert plan.widths["3"] == 8
    assert any("3 can't be scored by slimming and stay whole" in note for note in plan.notes)
    with pytest.raises(ModelError, match="slimming can score none of the 1 groups: no BatchNorm"):
        sp.score(sp.trace(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)), X), "slimming")


def test_a_function_serves_as_a_criterion():
    graph = sp.trace(Chain(), X)

    def bias_size(group):
        weights = next(w for w in group.weights if w.role in ("norm", "bias"))
        return group.per_unit(weights, weights.tensor.abs())

    scores = sp.score(graph, bias_size)
    assert scores.criterion == "bias_size"
    np.testing.assert_allclose(scores.values["conv2"], graph.model.conv2.bias.detach().abs(), rtol=1e-6)


def test_a_criterion_that_writes_to_what_it_is_shown_leaves_the_model_alone():
    def careless(group):
        weights = group.weights[0]
        weights.tensor.numpy()[:] = 0.5
        return group.per_unit(weights, weights.sums(weights.tensor.abs_()))

    model = Chain()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    sp.score(sp.trace(model, X), careless)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


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
    with pytest.raises(RecipeError, match="criterion thinet needs calibration images"):
        sp.score(graph, "thinet")
    with pytest.raises(RecipeError, match="thinet works for the widths of a plan"):
        sp.score(graph, "thinet", X)
    with pytest.raises(ValueError, match="needs 'date', which is none of"):
        sp.criterion("own", "x", needs=("date",))
    with pytest.raises(ValueError, match="registered already"):
        sp.criterion("l1", "again")(lambda group: torch.zeros(1))
