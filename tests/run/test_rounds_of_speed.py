"""A cut in rounds to a speedup, each measured beside the dense network; here one's time is its number of weights."""

import importlib
import math

import onnx
import pytest

from structprune.cost import Lead
from structprune.cost.model import by_macs
from structprune.plan.allocations import ALLOCATIONS, allocation
from structprune.plan.uniform import uniform
from structprune.progress import Reporter
from structprune.recipe import check_recipe
from structprune.run import runner_of
from structprune.runtimes import Benchmark
from structprune.store.artefacts import Artefacts
from tests.run.small_network import RECIPE

costs = importlib.import_module("structprune.run.stages.costs")
planning = importlib.import_module("structprune.run.stages.planning")
measured_planning = importlib.import_module("structprune.cost.measured_planning")


def weights(path):
    return sum(math.prod(tensor.dims) for tensor in onnx.load(path).graph.initializer)


def benchmark(models, **_):
    speedup = weights(models["dense"]) / weights(models["slim"])
    return Benchmark("fake", 1, 1, 1, 1, {"dense": 1.0}, {"slim": speedup}, {"slim": (speedup, speedup)})


@pytest.fixture
def learned(monkeypatch):
    """The networks whose costs were learned: they go with MACs, on a machine that is slower each time."""
    graphs = []

    def learn(graph, runtime, multiples, **_):
        graphs.append(graph)
        return by_macs(graph, len(graphs) * graph.macs() / 1e6, multiples, runtime)

    monkeypatch.setenv("STRUCTPRUNE_TIMING", "on")
    monkeypatch.setattr(costs, "learn_cost", learn)
    monkeypatch.setattr(measured_planning, "benchmark", benchmark)
    return graphs


def runner(folder, **prune):
    schedule = {"rounds": 2, "shape": "linear", "epochs": 0}
    return runner_of(
        check_recipe(
            {
                **RECIPE,
                "model": {**RECIPE["model"], "kwargs": {"width": 64}},
                "data": {**RECIPE["data"], "calibration": {"images": 32}},
                "train": None,
                "finetune": None,
                "prune": {"align": 1, "schedule": schedule, **prune},
            }
        ),
        Reporter(),
        Artefacts(folder),
    )


def cut_of(plan):
    return plan.params["dense"] / plan.params["slim"]


@pytest.mark.parametrize("criterion", ["l1", "thinet"])
def test_each_round_is_as_fast_as_its_share_of_the_way_asks_for(tmp_path, learned, criterion):
    run = runner(tmp_path, budget={"speedup": 2.0}, criterion=criterion)
    first, plan = run.value("plan", before="next.1"), run.value("plan")
    assert cut_of(first) == pytest.approx(4 / 3, rel=0.03)  # three quarters of the time, and then half of it
    assert cut_of(plan) == pytest.approx(2.0, rel=0.03)
    assert [graph.macs() for graph in learned] == [plan.macs["dense"], first.macs["slim"]]
    assert [rounds[-1]["goal"] for rounds in (first.latency["rounds"], plan.latency["rounds"])] == [
        pytest.approx(4 / 3),
        2.0,
    ]
    assert plan.latency["rounds"][-1]["measured"] == pytest.approx(cut_of(plan), rel=0.02)
    assert run.value("cut_plan").latency["dense"] == pytest.approx(first.latency["dense"] / cut_of(first), rel=0.02)
    assert plan.latency["dense"] == first.latency["dense"]  # at one pace
    again = runner(tmp_path, budget={"speedup": 2.0}, criterion=criterion)  # found in the store
    assert again.value("plan").to_json() == plan.to_json()


def test_a_network_that_is_as_fast_already_is_not_cut_for_that(tmp_path, learned, monkeypatch):
    monkeypatch.setattr(planning, "lead_over_dense", lambda graph, reference, cost, **_: Lead(reference, 2.5))
    run = runner(tmp_path, budget={"speedup": 2.0})
    cut = run.value("cut_plan")
    assert cut.macs["slim"] == cut.macs["dense"] == run.value("plan", before="next.1").macs["slim"]


def test_an_allocation_weighs_what_widths_of_each_rounds_network_cost(tmp_path, learned):
    weighed = []

    def by_cost(choices, scores, load):
        weighed.append(load.cost.dense_ms)
        return uniform(choices, scores, load)

    with ALLOCATIONS.restored():
        allocation("by_cost", "weighs costs", needs=["cost"])(by_cost)
        run = runner(tmp_path, budget={"macs": 0.5}, allocation="by_cost")
        plan, first = run.value("plan"), run.value("plan", before="next.1")
    assert 0.45 < plan.macs["slim"] / plan.macs["dense"] <= 0.5
    assert [graph.macs() for graph in learned] == [plan.macs["dense"], first.macs["slim"]]
    assert weighed[-1] == pytest.approx(2 * first.macs["slim"] / 1e6)
