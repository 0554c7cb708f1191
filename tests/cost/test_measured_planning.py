"""Plan, measure, correct: against a benchmark that is slower than the model thinks."""

import dataclasses
import importlib

import pytest
import torch

import structprune as sp
from structprune.cost import Lead, plan_measured
from structprune.cost.model import fit
from structprune.cost.probes import design
from structprune.errors import BudgetError
from structprune.runtimes import Benchmark, Runtime

from .test_model import Wide, made_up, options

planning = importlib.import_module("structprune.cost.measured_planning")
X = torch.randn(1, 3, 10, 10)


@pytest.fixture
def measured(monkeypatch):
    """A benchmark in which slim networks take what `made_up` says of the last plan, and `slower` times that.

    And the more so the less of the dense network is left, if it is `steep`.
    """
    state = {"slower": 1.25, "steep": 0.0, "pace": 1.0, "plan": None}

    def benchmark(models, **_):
        dense = made_up({"conv1": 64, "conv2": 48}).ms
        slim = made_up(state["plan"].widths).ms
        speedup = dense / (slim * state["slower"] * (slim / dense) ** state["steep"])
        return Benchmark(
            "fake", 1, 1, 1, 1, {"dense": dense * state["pace"]}, {"slim": speedup}, {"slim": (speedup, speedup)}
        )

    monkeypatch.setattr(planning, "benchmark", benchmark)
    graph = sp.trace(Wide(), X)
    probes = [made_up(widths) for widths in design(options(graph), 12)]
    scores = sp.score(graph, "l1")

    def make(budget):
        def planned(cost):
            state["plan"] = sp.plan(graph, scores, budget, cost=cost, align=1)
            return state["plan"]

        return planned

    return state, graph, fit(graph, probes, probes[0].ms, multiples={}), make


def test_the_model_is_corrected_until_the_measurement_is_met(measured):
    _, graph, cost, make = measured
    budget = {"speedup": 1.6}
    plan = plan_measured(graph, budget, cost, make(budget))
    rounds = plan.latency["rounds"]
    assert rounds[0]["measured"] < 1.6 * 0.97  # as planned it would have been too slow
    assert abs(rounds[-1]["measured"] / 1.6 - 1) <= 0.03
    assert not [note for note in plan.notes if "nearest" in note]
    assert sp.verify(graph.model, sp.prune(graph.model, plan), plan, X).passed


def test_a_network_that_was_cut_before_is_measured_beside_the_dense_one(measured, monkeypatch):
    _, graph, cost, make = measured
    timed = planning.benchmark

    def beside_dense(models, **options):
        figures = timed(models, **options)
        return dataclasses.replace(figures, speedup={"slim": 1.5 * figures.speedup["slim"]})

    monkeypatch.setattr(planning, "benchmark", beside_dense)
    plan = plan_measured(graph, {"speedup": 2.4}, cost, make({"speedup": 1.6}), lead=Lead(graph, 1.5))
    rounds = plan.latency["rounds"]
    assert rounds[0]["predicted"] == pytest.approx(2.4, rel=0.02)
    assert rounds[0]["measured"] == pytest.approx(rounds[0]["predicted"] / 1.25, rel=0.02)
    assert abs(rounds[-1]["measured"] / 2.4 - 1) <= 0.03
    assert plan.latency["dense"] == pytest.approx(cost.dense_ms)  # of the network that is cut


def test_a_network_that_is_faster_than_expected_is_made_wider(measured):
    state, graph, cost, make = measured
    state["slower"] = 0.6
    plan = plan_measured(graph, {"speedup": 2.0}, cost, make({"speedup": 2.0}))
    rounds = plan.latency["rounds"]
    assert rounds[0]["measured"] > 2.0 * 1.3
    assert abs(rounds[-1]["measured"] / 2.0 - 1) <= 0.03
    assert plan.latency["correction"] < 0.8


def test_corrections_that_overshoot_from_side_to_side_settle_between(measured):
    state, graph, cost, make = measured
    state |= {"slower": 1.6, "steep": 1.1}
    plan = plan_measured(graph, {"speedup": 2.0}, cost, make({"speedup": 2.0}))
    found = [entry["measured"] for entry in plan.latency["rounds"]]
    assert found[0] > 2.0 * 1.2
    assert found[1] < 2.0 * 0.85
    assert abs(found[-1] / 2.0 - 1) <= 0.03
    assert not [note for note in plan.notes if "nearest" in note]


def test_a_gap_that_no_width_is_in_ends_the_search_with_a_note(measured, monkeypatch):
    state, graph, cost, make = measured
    timed = planning.benchmark

    def cliff(models, **options):
        state["slower"] = 1.5 if state["plan"].widths["conv1"] + state["plan"].widths["conv2"] > 70 else 0.7
        return timed(models, **options)

    monkeypatch.setattr(planning, "benchmark", cliff)
    plan = plan_measured(graph, {"speedup": 2.0}, cost, make({"speedup": 2.0}), rounds=30)
    rounds = plan.latency["rounds"]
    assert len(rounds) < 12
    assert {entry["measured"] > 2 for entry in rounds} == {True, False}
    assert any("the widths' multiples allow nothing nearer" in note for note in plan.notes)


def test_milliseconds_are_those_that_are_measured(measured):
    """On a machine that has become half as fast since its costs were learned."""
    state, graph, cost, make = measured
    state["pace"] = 2.0
    asked = 2.0 * cost.dense_ms / 1.5
    plan = plan_measured(graph, {"latency_ms": asked}, cost, make({"latency_ms": asked}))
    slim = 2.0 * made_up(plan.widths).ms * state["slower"]
    assert slim == pytest.approx(asked, rel=0.03)


def test_another_budget_may_make_it_faster_than_asked(measured):
    _, graph, cost, make = measured
    budget = {"speedup": 1.1, "macs": 0.1}
    plan = plan_measured(graph, budget, cost, make(budget))
    assert len(plan.latency["rounds"]) == 1
    assert plan.latency["rounds"][0]["measured"] > 1.1 * 1.03


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_networks_are_timed_on_the_engine_that_they_are_for(engine):
    graph, runtime = sp.trace(Wide(), X), Runtime(engine=engine)
    probes = [made_up(widths) for widths in design(options(graph), 12)]
    cost = fit(graph, probes, probes[0].ms, multiples={}).scaled(runtime, 5.0)
    scores, budget = sp.score(graph, "l1"), {"speedup": 1.3}
    plan = plan_measured(
        graph, budget, cost, lambda cost: sp.plan(graph, scores, budget, cost=cost, align=1), rounds=1, seconds=0.05
    )
    assert plan.latency["dense"] == 5.0
    assert plan.latency["rounds"][0]["predicted"] >= 1.3
    assert plan.latency["rounds"][0]["measured"] > 0
    assert sp.verify(graph.model, sp.prune(graph.model, plan), plan, X).passed


def test_what_can_not_be_met_exactly_is_said(measured):
    state, graph, cost, make = measured
    budget = {"speedup": 1.6}
    plan = plan_measured(graph, budget, cost, make(budget), rounds=1)
    assert any("asked for 1.60×, and the nearest measured in 1 round" in note for note in plan.notes)
    state["slower"] = 40.0
    with pytest.raises(BudgetError, match=r"speedup 40 .* can't be met"):
        plan_measured(graph, {"speedup": 40}, cost, make({"speedup": 40}))
