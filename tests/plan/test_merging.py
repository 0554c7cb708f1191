"""Merging instead of dropping: which units are clustered, what a plan says of it, and what can't be merged."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import BudgetError, PlanError
from structprune.graph.mergeable import find_mergeable
from structprune.plan.clustering import cluster
from structprune.plan.merging import merge
from structprune.plan.planning import realise
from structprune.suites.equality import random_plan
from tests.example_networks import Chain, randomise

X = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def merged_plan(model, x=X, share=0.5, **options):
    graph = sp.trace(model, x[:1], **options)
    return graph, sp.plan(graph, sp.score(graph, "l1"), {"macs": share}, align=1, surgery="merge")


# --- clusters ---------------------------------------------------------------------------------------------------------


def spread(rows, labels):
    return sum(((rows[labels == n] - rows[labels == n].mean(0)) ** 2).sum() for n in np.unique(labels))


def test_clusters_are_those_of_a_brute_force_search():
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows = rng.normal(size=(6, 2)) + 4 * rng.integers(0, 3, (6, 1))
        every = (np.array(labels) for labels in np.ndindex(*[3] * 6) if len(set(labels)) == 3)
        best = min(spread(rows, labels) for labels in every)
        assert spread(rows, cluster(rows, 3)) <= 1.05 * best


@pytest.mark.parametrize("count", [1, 3, 7, 8])
def test_there_are_as_many_clusters_as_asked_for_even_of_equal_rows(count):
    for rows in (np.zeros((8, 3)), np.eye(8), np.repeat(np.eye(4), 2, axis=0)):
        labels = cluster(rows, count)
        assert sorted(set(labels.tolist())) == list(range(count))
        assert (labels == cluster(rows, count)).all()


# --- plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_is_merged_into_what_and_is_read_back():
    model = randomise(Chain())
    graph, plan = merged_plan(model)
    dropped = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)
    assert (plan.macs, plan.params, plan.widths) == (dropped.macs, dropped.params, dropped.widths)
    assert plan.criterion == "l1"
    assert plan.merges is not None
    assert dropped.merges is None
    assert "merges" not in dropped.to_json()
    assert sp.Plan.from_json(plan.to_json()) == plan
    into = plan.merges["groups"]["conv1"]
    assert set(into) == set(plan.groups["conv1"]["kept"])
    assert {key: [axis["by"] for axis in axes.values()] for key, axes in plan.merges["axes"].items()} == {
        **{f"bn1.{name}": ["mean"] for name in ("weight", "bias", "running_mean", "running_var")},
        **{"conv1.weight": ["mean"], "conv2.bias": ["mean"], "conv2.weight": ["mean", "sum"], "fc.weight": ["sum"]},
    }


def test_the_plan_hangs_on_the_weights_alone():
    model = randomise(Chain())
    assert merged_plan(model)[1] == merged_plan(model)[1]


def test_filters_that_batchnorms_turn_round_are_not_alike():
    model = randomise(Chain())
    with torch.no_grad():
        model.conv1.weight.copy_(model.conv1.weight[[0, 1, 2, 3, 0, 1, 2, 3]])
        model.bn1.weight.copy_(model.bn1.weight[[0, 1, 2, 3, 0, 1, 2, 3]])
        model.conv1.weight[[5, 7]] *= -1
        model.bn1.weight[[5, 6]] *= -1
    graph = sp.trace(model, X[:1])
    scores = sp.score(graph, "l1")
    plan = merge(graph, realise(graph, {"conv1": np.arange(5), "conv2": np.arange(6)}, scores.criterion))
    into = plan.merges["groups"]["conv1"]
    alike = {(a, b) for a in range(8) for b in range(a) if into[a] == into[b]}
    assert {(4, 0), (5, 1)} <= alike
    assert not alike & {(6, 2), (7, 3)}


def test_filters_that_consumers_make_much_of_stay_apart():
    """Of two pairs that are equally near, the one whose columns are small becomes one."""
    model = randomise(Chain())
    with torch.no_grad():
        model.conv1.weight.copy_(10 * torch.eye(8, 27).reshape(8, 3, 3, 3))
        model.conv1.weight[1] = model.conv1.weight[0]
        model.conv1.weight[3] = model.conv1.weight[2]
        model.conv1.weight[[1, 3], 2, 2, 2] += 1
        model.conv2.weight[:, :2] *= 10
        model.conv2.weight[:, 2:4] /= 10
    graph = sp.trace(model, X[:1])
    plan = merge(graph, realise(graph, {"conv1": np.arange(7), "conv2": np.arange(6)}, "l1"))
    into = plan.merges["groups"]["conv1"]
    assert into[2] == into[3]
    assert into[0] != into[1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["groups"].update(other=[0]), "'merges.groups.other' is not among groups"),
        (lambda m: m["groups"]["conv1"].pop(), "of 7 of 8 positions what they are merged into"),
        (lambda m: m["groups"]["conv1"].__setitem__(slice(None), [-1] * 8), "merges what is kept into something else"),
        (lambda m: m["axes"]["conv1.weight"]["0"].update(by="max"), "'mean' or 'sum'"),
        (lambda m: m["axes"]["conv1.weight"].update({"1": {"by": "sum", "into": [0, 1, 2]}}), "is not in keep"),
        (lambda m: m["axes"]["conv1.weight"]["0"].update(into=[[0], [1]]), "as many blocks as keep has there"),
        (lambda m: m["norms"][0].update(eps=-1.0), "greater than or equal to 0"),
        (lambda m: m["norms"][0].update(mean="fc.weight"), "needs fc.weight to be merged as the others, by the mean"),
        (lambda m: m["norms"][0]["layer"].update(weight="fc.weight"), "needs fc.weight to be merged as the others"),
    ],
)
def test_merges_that_make_no_sense_are_refused(edit, message):
    _, plan = merged_plan(randomise(Chain()))
    edit(plan.merges)
    with pytest.raises(PlanError, match=message):
        plan.check()


def test_what_is_merged_into_a_unit_that_goes_is_refused():
    _, plan = merged_plan(randomise(Chain()))
    into = plan.merges["groups"]["conv1"]
    gone = next(unit for unit, place in enumerate(into) if unit != place)
    into[gone] = gone
    with pytest.raises(PlanError, match="merges into what is not kept"):
        plan.check()


def test_other_names_of_surgery_are_refused():
    graph = sp.trace(Chain(), X[:1])
    with pytest.raises(BudgetError, match=r"surgery.*'drop' or 'merge'"):
        sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, surgery="fold")


def test_filters_that_are_not_finite_are_named():
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)))
    with torch.no_grad():
        model[0].weight[0] = torch.nan
    graph = sp.trace(model.eval(), torch.randn(1, 3, 8, 8))
    with pytest.raises(PlanError, match=r"merging compares filters, and 0\.weight holds NaN or infinite values"):
        sp.plan(graph, sp.score(graph, "random"), {"channels": 0.5}, surgery="merge", align=1)


def test_plans_that_merge_are_not_composed():
    model = randomise(Chain())
    _, plan = merged_plan(model)
    slim = sp.prune(model, plan)
    again = sp.trace(slim, X[:1])
    second = sp.plan(again, sp.score(again, "l1"), {"macs": 0.8}, align=1)
    for pair in ((plan, second), (second, plan)):
        with pytest.raises(PlanError, match="one of them merges channels, and a mean of means is not that of all"):
            pair[0].then(pair[1])


def test_saved_networks_are_bound_to_what_was_merged(tmp_path):
    model = randomise(Chain())
    _, plan = merged_plan(model)
    slim = sp.prune(model, plan)
    sp.save(slim, plan, tmp_path)
    assert torch.equal(sp.load(tmp_path, model)(X), slim(X))
    text = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace('"by": "sum"', '"by": "mean"', 1))
    with pytest.raises(sp.errors.StoreError, match="is not the plan that"):
        sp.load(tmp_path, model)


# --- what can't be merged ---------------------------------------------------------------------------------------------


class Normalised(nn.Module):
    """A LayerNorm over channels, and a hidden width beside it that it does not see."""

    def __init__(self):
        super().__init__()
        self.enter, self.norm, self.up = nn.Conv2d(3, 8, 1), nn.LayerNorm(8), nn.Linear(8, 16)
        self.down, self.head = nn.Linear(16, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.enter(x).flatten(2).transpose(1, 2)
        return self.head((x + self.down(F.gelu(self.up(self.norm(x))))).mean(1))


class Summed(nn.Module):
    def __init__(self, total):
        super().__init__()
        self.conv, self.out, self.total = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), total

    def forward(self, x):
        x = self.conv(x)
        return self.out(x) * self.total(x)


class ByProduct(nn.Module):
    """Columns that are squared before they are used: their sum is not what two equal channels need."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return F.conv2d(self.conv(x), self.out.weight**2)


class ByEinsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.weight = nn.Conv2d(3, 8, 1), nn.Parameter(torch.rand(4, 8))

    def forward(self, x):
        return torch.einsum("nchw,oc->nohw", self.conv(x), self.weight)


@pytest.mark.parametrize(
    ("model", "group", "reason"),
    [
        (Normalised(), "enter", "layer_norm in norm takes a statistic or a product over them"),
        (Summed(lambda x: x.sum(1, keepdim=True)), "conv", "sum in forward takes a statistic"),
        (Summed(lambda x: (x * x.flip(2)).mean(1, keepdim=True)), "conv", "mean in forward takes a statistic"),
        (ByProduct(), "conv", "conv2d in forward takes a statistic or a product"),
        (ByEinsum(), "conv", "einsum adds them up otherwise than by a layer's own weight"),
    ],
)
def test_groups_for_which_merging_is_not_exact_are_dropped_from_and_named(model, group, reason):
    graph = sp.trace(model, X[:1])
    assert reason in find_mergeable(graph).hindrances[group]
    assert group not in find_mergeable(graph).labels
    plan = merge(graph, random_plan(graph, 0))
    assert group not in (plan.merges or {"groups": {}})["groups"]
    assert sp.verify(model.eval(), sp.prune(model, plan), plan, X).passed


def test_the_other_groups_are_merged_and_the_notes_say_which_are_not():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.GroupNorm(1, 8), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)
    ).eval()
    _, plan = merged_plan(model)
    assert list(plan.merges["groups"]) == ["2"]
    assert plan.widths["0"] < 8
    assert any(
        "1 of 2 groups drop channels instead of merging them (0): group_norm in 1" in note for note in plan.notes
    )
    assert sp.verify(model, sp.prune(model, plan), plan, X).passed


class Halves(nn.Module):
    """Channels of which one half goes through a function that the other does not see, then both into one layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        a, b = self.conv(x).chunk(2, 1)
        return self.out(torch.cat([a, b.exp()], 1))


def test_units_that_take_other_ways_are_not_merged_with_each_other():
    model = Halves().eval()
    model.conv.weight.data[4:] = model.conv.weight.data[:4]  # nothing is nearer to a filter than the other half's
    model.conv.bias.data[4:] = model.conv.bias.data[:4]
    _, plan = merged_plan(model, form="graph")
    into = np.array(plan.merges["groups"]["conv"])
    assert ((into < 4) == (np.arange(8) < 4)).all()
    assert sp.verify(model, sp.prune(model, plan), plan, X).passed


def test_units_of_one_block_of_a_grouped_convolution_stay_in_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 4, 1)).eval()
    model[0].weight.data[4:] = model[0].weight.data[:4]
    _, plan = merged_plan(model)
    for name in ("0", "2"):
        into = np.array(plan.merges["groups"][name])
        assert ((into < 4) == (np.arange(8) < 4)).all()
    assert isinstance(plan.merges["axes"]["2.weight"]["1"]["into"][0], list)
    assert sp.verify(model, sp.prune(model, plan), plan, X).passed


def test_what_is_kept_by_no_cluster_is_dropped():
    """A plan edited by hand may merge some units and drop others."""
    model = randomise(Chain())
    _, plan = merged_plan(model)
    into = plan.merges["groups"]["conv1"]
    gone = next(unit for unit, place in enumerate(into) if unit != place)
    for entry in (*plan.merges["axes"]["conv1.weight"].values(), plan.merges["axes"]["conv2.weight"]["1"]):
        entry["into"][gone] = -1
    for name in ("weight", "bias", "running_mean", "running_var"):
        plan.merges["axes"][f"bn1.{name}"]["0"]["into"][gone] = -1
    into[gone] = -1
    plan = dataclasses.replace(plan)
    assert sp.verify(model, sp.prune(model, plan), plan, X).passed
