"""Planning ends when its time is over, with the best plan so far and a note, whatever a network takes."""

import importlib
import io
import math

import pytest
import torch
from rich.console import Console

import structprune as sp
from structprune import progress
from structprune.cost import Deadline, learn_cost, learn_multiples, learning, plan_measured
from structprune.cost.model import by_macs, fit
from structprune.cost.multiples import measure_multiples
from structprune.cost.probes import Timings, design, measure_probes
from structprune.errors import BudgetError
from structprune.runtimes import Benchmark, Runtime

from .test_model import Wide, made_up, options

planning = importlib.import_module("structprune.cost.measured_planning")
X = torch.randn(1, 3, 10, 10)
STEPS = {"conv": 4, "depthwise": 4, "linear": 4}


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def slow(monkeypatch):
    """An engine on which each timing takes 100 seconds, and networks are 1.25 times as slow as their model says."""
    clock, plans, timings = Clock(), [], []

    def benchmark(models, *, rounds, **_):
        clock.seconds += 100
        timings.append(rounds)
        dense, slim = made_up({"conv1": 64, "conv2": 48}).ms, made_up(plans[-1].widths).ms
        speedup = dense / (1.25 * slim) * (1 + 0.2 * (len(timings) % 2))  # never twice the same
        return Benchmark("fake", 1, 1, 1, 1, {"dense": dense}, {"slim": speedup}, {"slim": (speedup, speedup)})

    monkeypatch.setattr(planning, "benchmark", benchmark)
    graph = sp.trace(Wide(), X)
    scores = sp.score(graph, "l1")
    probes = [made_up(widths) for widths in design(options(graph), 12)]

    def make(budget):
        def planned(cost):
            plans.append(sp.plan(graph, scores, budget, cost=cost, align=1))
            return plans[-1]

        return planned

    return clock, timings, graph, fit(graph, probes, probes[0].ms, multiples={}), make


@pytest.mark.parametrize(("seconds", "rounds"), [(50, 1), (150, 2), (250, 3)])
def test_no_round_begins_after_the_deadline(slow, seconds, rounds):
    clock, timings, graph, cost, make = slow
    budget, shares = {"speedup": 1.6}, []
    until = Deadline(seconds, clock)
    plan = plan_measured(
        graph, budget, cost, make(budget), tolerance=1e-6, deadline=until, progress=shares.append, rounds=20
    )
    assert len(timings) == len(plan.latency["rounds"]) == rounds
    assert clock.seconds <= seconds + 100
    nearest = min(abs(entry["measured"] / 1.6 - 1) for entry in plan.latency["rounds"])
    assert any(f"{100 * nearest:.1f} % off it: the {seconds} s for it were over" in note for note in plan.notes)
    assert sp.verify(graph.model, sp.prune(graph.model, plan), plan, X).passed
    assert shares == sorted(shares)


def test_a_deadline_that_is_over_gives_the_plan_by_the_costs_as_they_are(slow):
    clock, timings, graph, cost, make = slow
    until = Deadline(10, clock)
    clock.seconds = 11
    plan = plan_measured(graph, {"speedup": 1.6}, cost, make({"speedup": 1.6}), deadline=until)
    assert not timings
    assert plan.latency["rounds"] == []
    assert plan.latency["correction"] == 1.0
    assert plan.latency["dense"] / plan.latency["slim"] >= 1.6
    assert any("asked for 1.60×, and the network was not timed" in note for note in plan.notes)
    with pytest.raises(BudgetError, match="can't be met"):
        plan_measured(graph, {"speedup": 90}, cost, make({"speedup": 90}), deadline=until)


def test_a_deadline_that_comes_while_a_later_plan_is_made_leaves_the_nearest_that_was_measured(slow):
    clock, timings, graph, cost, make = slow
    budget, planned, made = {"speedup": 1.6}, make({"speedup": 1.6}), []

    def slowly(costs):
        clock.seconds += 60  # 60 of 170 for the first plan, 100 for its timing, and the second is not done in time
        made.append(planned(costs))
        return made[-1]

    plan = plan_measured(graph, budget, cost, slowly, tolerance=1e-6, deadline=Deadline(170, clock), rounds=20)
    assert (len(made), len(timings)) == (2, 1)
    assert plan is made[0]
    assert len(plan.latency["rounds"]) == 1
    assert any("the 170 s for it were over" in note for note in plan.notes)


def test_a_network_of_seconds_is_timed_in_fewer_rounds(slow):
    _, timings, graph, cost, make = slow
    seconds = cost.scaled(cost.runtime, 3000.0)
    plan_measured(graph, {"speedup": 1.6}, seconds, make({"speedup": 1.6}), rounds=1, deadline=Deadline(120))
    plan_measured(graph, {"speedup": 1.6}, cost, make({"speedup": 1.6}), rounds=1, deadline=Deadline(120))
    assert timings == [1, 6]


def test_other_engines_have_their_kernels_timed_at_a_batch_that_a_cpu_can_run(monkeypatch, tmp_path):
    """64 images of half a second, and 16 networks of other widths, would take an hour."""
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    graph, seen = sp.trace(Wide(), X), []

    def probes(graph, widths, *, runtime, **_):
        seen.append(runtime)
        return Timings([made_up(chosen) for chosen in widths], made_up(widths[0]).ms)

    monkeypatch.setattr(learning, "measure_probes", probes)
    dense = {"onnxruntime": 500.0, "torch": 80.0}
    monkeypatch.setattr(learning, "time_dense", lambda graph, runtime, *_: dense[runtime.engine])
    cost = learn_cost(graph, Runtime(engine="torch", batch=64), multiples=STEPS)
    assert seen[-1] == Runtime(batch=1)
    assert (cost.dense_ms, cost.runtime.batch) == (80.0, 64)
    dense["onnxruntime"] = 5.0
    learn_cost(graph, Runtime(engine="torch", batch=64), multiples=STEPS, refresh=True)
    assert seen[-1] == Runtime(batch=16)
    cost = learn_cost(graph, Runtime(batch=8), multiples=STEPS)  # with time without end, as asked
    assert seen[-1] == Runtime(batch=8)
    dense["onnxruntime"] = 500.0
    learn_cost(graph, Runtime(batch=8), multiples=STEPS, deadline=Deadline(600), refresh=True)
    assert seen[-1] == Runtime(batch=2)


@pytest.mark.parametrize("count", [0, 3, 9])
def test_probes_that_there_was_no_time_for_are_said_and_not_kept(monkeypatch, tmp_path, count):
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    graph, told, calls = sp.trace(Wide(), X), [], []

    def probes(graph, widths, **_):
        calls.append(widths)
        return Timings([made_up(chosen) for chosen in widths[:count]], made_up(widths[0]).ms if count else math.nan)

    monkeypatch.setattr(learning, "measure_probes", probes)
    for _ in range(2):
        cost = learn_cost(graph, multiples=STEPS, tell=told.append)
    assert len(calls) == 2
    assert list(calls[0][0].values()) == [64, 48]
    assert max(calls[0][1].values()) <= 8  # the narrowest comes next
    assert f"there was time to time {count} of 16 networks" in told[0]
    assert ("go with MACs" in told[0]) == (count < 4)
    assert cost.at({}, graph) == pytest.approx(cost.dense_ms, rel=1e-3 if count < 4 else 0.1)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"speedup": 1.5}, cost=cost, align=1)
    assert plan.latency["dense"] / plan.latency["slim"] >= 1.5


def test_costs_that_go_with_macs():
    graph = sp.trace(Wide(), X)
    cost = by_macs(graph, 8.0, STEPS, Runtime())
    plan = sp.plan(graph, sp.score(graph, "l1"), {"speedup": 2.0}, cost=cost, align=1)
    assert plan.latency["slim"] == pytest.approx(8.0 * plan.macs["slim"] / plan.macs["dense"], rel=1e-6)
    assert cost.corrected(2.0).at({}, graph) == pytest.approx(16.0)


def test_measuring_stops_at_the_deadline(tmp_path):
    graph, clock = sp.trace(Wide(), X), Clock()
    widths = design(options(graph), 6)

    def progress(share):
        clock.seconds = share

    timings = measure_probes(
        graph, widths, runtime=Runtime(), seconds=0.1, progress=progress, deadline=Deadline(0.4, clock)
    )
    assert 2 <= len(timings.probes) <= 3
    assert timings.dense_ms > 0
    assert measure_probes(graph, widths, runtime=Runtime(), deadline=Deadline(0)).probes == []
    assert measure_multiples(Runtime(), deadline=Deadline(0)) == {"conv": [], "depthwise": [], "linear": []}


def test_steps_that_there_was_no_time_for_are_said_and_not_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    told = []
    assert learn_multiples(deadline=Deadline(0), tell=told.append) == {"conv": 16, "depthwise": 16, "linear": 16}
    assert (
        "no time to find the multiple of the widths of conv, depthwise, linear: multiples of 16 were taken" in told[0]
    )
    assert not list(tmp_path.iterdir())


def test_where_nobody_sees_a_bar_lines_tell_how_far_it_is(monkeypatch):
    """In a pipe or a file, every now and then."""
    monkeypatch.setattr(progress, "QUIET", 0.0)
    stream = io.StringIO()
    with progress.Reporter(Console(file=stream)).bar("timing") as update:
        update(0.25)
        update(0.5, "round 2")
    assert "timing: 25 %" in stream.getvalue()
    assert "timing round 2: 50 %" in stream.getvalue()
