"""What people see of a graph, a group, a plan and a gate when they print one."""

import dataclasses

import numpy as np
import torch
from torch import nn

import structprune as sp
from structprune.plan import realise
from tests.example_networks import Chain

X = torch.randn(2, 3, 10, 10)


def traced():
    torch.manual_seed(0)
    model = Chain().eval()
    return model, sp.trace(model, X[:1])


def test_a_graph_shows_its_size_and_its_groups():
    _, graph = traced()
    macs = 100 * 3 * 9 * 8 + 100 * 8 * 6 + 6 * 5
    params = 3 * 9 * 8 + 2 * 8 + (8 * 6 + 6) + (6 * 5 + 5)
    assert repr(graph) == (
        "<DependencyGraph of Chain in module form: 2 groups of 14 units, 0 barriers, "
        f"{macs:,} MACs, {params} parameters>"
    )
    assert repr(list(graph.groups)) == (
        "[<Group conv1: 8 units, exact, in 6 tensors of the model>, "
        "<Group conv2: 6 units, exact, in 3 tensors of the model>]"
    )


def test_a_group_shows_what_goes_together():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1, groups=2), nn.GroupNorm(2, 12), nn.Conv2d(12, 2, 1))
    first, second = sp.trace(net.eval(), X[:1]).groups
    assert repr(first) == "<Group 0: 8 units, 2 at a time, exact, in 3 tensors of the model>"
    assert repr(second) == "<Group 1: 12 units, 2 at a time, statistic-changing, in 5 tensors of the model>"


def test_a_plan_shows_what_it_was_asked_for_and_what_is_left():
    _, graph = traced()
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5, "params": 300}, align=1)
    macs, params = (f"{c['slim']:,} of {c['dense']:,}" for c in (plan.macs, plan.params))
    shares = [100 * c["slim"] / c["dense"] for c in (plan.macs, plan.params)]
    plan.notes = ["one", "two"]
    assert repr(plan) == (
        f"<Plan by l1, uniform, macs 0.5 and params 300: 2 of 2 groups cut, {macs} MACs ({shares[0]:.1f} %), "
        f"{params} parameters ({shares[1]:.1f} %), 2 notes>"
    )
    whole = realise(graph, {group.name: np.arange(group.units) for group in graph.groups})
    assert repr(whole).startswith("<Plan by hand: 0 of 2 groups cut, ")
    for edited in ({"macs": {}}, {"groups": None}, {"budget": {"macs": None}}):
        assert "Plan" in repr(dataclasses.replace(plan, **edited))


def test_a_gate_shows_each_comparison_on_a_line():
    model, graph = traced()
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)
    slim = sp.prune(model, plan)
    lines = repr(sp.verify(model, slim, plan, X)).splitlines()
    names = ["masked_vs_slim", "float64", "random_weights", "reload", "onnx", "training"]
    assert lines[0] == "<Gate passed"
    assert [line.split(":")[0].strip() for line in lines[1:]] == names
    assert all("passed, differs by " in line for line in lines[1:])
    with torch.no_grad():
        slim.fc.weight[0, 0] += 1
    shown = repr(sp.verify(model, slim, plan, X))
    assert shown.startswith("<Gate failed\n  masked_vs_slim: failed, relative difference ")
    assert "\n  weights: the slim network's weights are not those of the dense network" in shown
