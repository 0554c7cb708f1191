"""Budgets, constraints and allocation, and a plan as data."""

import itertools
import json

import numpy as np
import pytest
import timm
import torch
from torch import nn

import structprune as sp
from structprune.errors import BudgetError, PlanError, RecipeError
from tests.example_networks import Chain

X = torch.randn(1, 3, 10, 10)


def _net():
    layers = []
    for before, after in itertools.pairwise([3, 32, 48, 64, 40]):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(40, 4, 1))


def _plan(budget, **options):
    model = _net()
    graph = sp.trace(model, X)
    return graph, sp.plan(graph, sp.score(graph, "l1"), budget, **{"align": 1, **options})


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("budget", [{"macs": 0.5}, {"params": 0.3}, {"macs": 0.9, "params": 0.4}, {"macs": 0.25}])
def test_budgets_are_met_within_one_per_cent(allocation, budget):
    graph, plan = _plan(budget, allocation=allocation)
    shares = {"macs": plan.macs["slim"] / plan.macs["dense"], "params": plan.params["slim"] / plan.params["dense"]}
    assert all(shares[name] <= allowed for name, allowed in budget.items())
    assert max(shares[name] / allowed for name, allowed in budget.items()) >= 0.99
    assert plan.notes == []
    assert plan.macs["dense"] == graph.macs()


def test_an_absolute_budget_is_the_same_as_its_fraction():
    graph, fraction = _plan({"macs": 0.5})
    absolute = sp.plan(graph, sp.score(graph, "l1"), {"macs": graph.macs() // 2}, align=1)
    assert absolute.keep == fraction.keep


def test_uniform_cuts_every_group_alike():
    _, plan = _plan({"macs": 0.4})
    ratios = [len(entry["kept"]) / entry["units"] for entry in plan.groups.values()]
    assert max(ratios) - min(ratios) <= 2 / 32


def test_the_lowest_scores_go():
    graph, plan = _plan({"macs": 0.5})
    scores = sp.score(graph, "l1").values
    for name, entry in plan.groups.items():
        gone = np.delete(scores[name], entry["kept"])
        assert gone.max() <= scores[name][entry["kept"]].min()


def test_global_cuts_more_where_scores_are_unequal():
    graph = sp.trace(_net(), X)
    flat = {g.name: np.ones(g.units) + 1e-3 * np.arange(g.units) for g in graph.groups}
    flat["4"][:50] = 1e-6  # most of one layer hardly matters
    scores = sp.score(graph, lambda group: torch.from_numpy(flat[group.name]))
    plan = sp.plan(graph, scores, {"macs": 0.42}, allocation="global", align=1)
    ratios = {name: len(entry["kept"]) / entry["units"] for name, entry in plan.groups.items()}
    assert ratios["4"] < 0.3
    assert min(ratio for name, ratio in ratios.items() if name != "4") > 0.8


def test_constraints_hold():
    _, plan = _plan({"macs": 0.3}, align=8, min_channels=16, ignore=["2"])
    kept = {name: len(entry["kept"]) for name, entry in plan.groups.items()}
    assert kept["2"] == 48
    assert all(count % 8 == 0 for count in kept.values())
    assert min(kept.values()) >= 16
    _, plan = _plan({"macs": 0.55}, max_ratio=0.3)
    assert all(len(entry["kept"]) >= 0.7 * entry["units"] for entry in plan.groups.values())


def test_one_of_a_layers_groups_is_ignored_by_its_name():
    model = timm.create_model("test_vit", num_classes=10).eval()
    graph = sp.trace(model, torch.randn(1, 3, *model.patch_embed.img_size))
    heads = [g.name for g in graph.groups if g.name.endswith(":num_heads")]
    widths = [g.name for g in graph.groups if g.name.endswith(":head_dim")]
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.4}, align=1, ignore=["*:num_heads"])
    shares = {name: len(entry["kept"]) / entry["units"] for name, entry in plan.groups.items()}
    assert heads
    assert all(shares[name] == 1 for name in heads)
    assert widths
    assert all(shares[name] < 1 for name in widths)  # of the same layers


def test_coarse_steps_end_below_the_budget_and_say_so():
    _, plan = _plan({"macs": 0.5}, align=16)
    assert plan.macs["slim"] <= 0.5 * plan.macs["dense"]
    if plan.macs["slim"] < 0.495 * plan.macs["dense"]:
        assert "below the budget" in plan.notes[0]
        assert "align=16" in plan.notes[0]
    _, whole = _plan({"macs": 1.0})
    assert whole.macs["slim"] == whole.macs["dense"]
    assert whole.keep == {}


def test_budgets_out_of_reach_say_how_near_one_can_come():
    with pytest.raises(
        BudgetError, match=r"budget macs .* can't be met: with min_channels=1, max_ratio=0.9.* smallest"
    ):
        _plan({"macs": 0.001})
    try:
        _plan({"macs": 0.001})
    except BudgetError as error:
        nearest = float(str(error).split(">= ")[1].split(",")[0])
    _, plan = _plan({"macs": nearest})
    assert plan.macs["slim"] <= nearest * plan.macs["dense"]


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        ({}, {}, "the budget is empty"),
        ({"flops": 0.5}, {}, "unknown budget 'flops'"),
        ({"macs": 0}, {}, "is not an amount"),
        ({"macs": float("nan")}, {}, "is not an amount"),
        ({"macs": "half"}, {}, "is not an amount"),
        ({"macs": 0.5}, {"min_channels": 0}, "at least 1 channel"),
        ({"macs": 0.5}, {"max_ratio": 0.0}, "is not a share"),
        ({"macs": 0.5}, {"align": 0}, "give 1 or more"),
        ({"macs": 0.5}, {"ignore": ["stem*"]}, r"ignore: 'stem\*' matches no layer"),
    ],
)
def test_impossible_arguments(budget, options, message):
    with pytest.raises(BudgetError, match=message):
        _plan(budget, **options)


def test_unknown_allocation_and_scores_of_another_graph():
    with pytest.raises(RecipeError, match="unknown allocation 'unifrom': did you mean uniform"):
        _plan({"macs": 0.5}, allocation="unifrom")
    graph, other = sp.trace(_net(), X), sp.trace(Chain(), X)
    with pytest.raises(PlanError, match="do not cover group 0"):
        sp.plan(graph, sp.score(other, "l1"), {"macs": 0.5}, align=1)


def test_a_plan_is_plain_data():
    _, plan = _plan({"macs": 0.5})
    again = sp.Plan.from_json(plan.to_json())
    assert again == plan
    assert json.loads(plan.to_json())["keep"]["0.weight"]["0"] == plan.groups["0"]["kept"]
    with pytest.raises(PlanError, match="not a plan"):
        sp.Plan.from_json("[]")
    with pytest.raises(PlanError, match=r"schema is 'structprune\.plan/0'"):
        sp.Plan.from_json('{"schema": "structprune.plan/0"}')
    with pytest.raises(PlanError, match="not a whole plan"):
        sp.Plan.from_json('{"schema": "structprune.plan/1"}')


def test_plans_are_made_on_the_meta_device():
    model = _net().to("meta")
    graph = sp.trace(model, X.to("meta"))
    scores = {g.name: np.arange(g.units) for g in graph.groups}
    plan = sp.plan(graph, sp.score(graph, lambda group: torch.from_numpy(scores[group.name])), {"macs": 0.5}, align=1)
    assert 0.495 <= plan.macs["slim"] / plan.macs["dense"] <= 0.5


class _Config:
    def __init__(self):
        self.hidden_size, self.intermediate_size, self.image_size, self.num_labels = 8, 12, 12, 4


class _Configured(nn.Module):
    """As Hugging Face's: layers were made from a config that nothing reads when it runs, and each layer holds it."""

    def __init__(self):
        super().__init__()
        self.config = _Config()
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 8)
        self.fc1.config = self.config

    def forward(self, x):
        return x + self.fc2(self.fc1(x).relu())


def test_a_configuration_that_a_cut_contradicts_is_named():
    net, x = _Configured().eval(), torch.randn(2, 8)
    graph = sp.trace(net, x)
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"params": 0.7}, align=1)
    (note,) = [note for note in plan.notes if "still says" in note]
    assert note.startswith("config of the slim _Configured still says intermediate_size=12, and layers are narrower")
    untouched = sp.plan(graph, sp.score(graph, "l1"), budget={"params": 1.0}, align=1)
    assert not any("still says" in note for note in untouched.notes)
