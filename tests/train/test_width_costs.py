"""Methods that are held to a budget of speed: the time of widths, differentiable, in trainings and checkpoints."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.utils.data import TensorDataset

import structprune as sp
from structprune.cost.model import by_macs
from structprune.errors import RecipeError
from structprune.graph import Polynomial
from structprune.progress import Reporter
from structprune.recipe import TrainSpec
from structprune.run import runner_of
from structprune.run.stages import costs as costs_of_runs
from structprune.runtimes import Runtime
from structprune.store.artefacts import Artefacts
from structprune.train import fit
from structprune.train.expected_costs import ExpectedCosts, in_blocks
from structprune.train.method import ComingCut
from structprune.train.width_costs import WidthCosts
from structprune.train.zero_units import zero_units
from tests.train.small_training import equal, network, samples
from tests.train.test_planned_methods import recipe_of
from tests.train.test_sparse_methods import Residual

SPEED = {"budget": {"speedup": 1.5}, "align": 1}
METHODS = {"l0": {"lr": 0.3}, "gdp": {"lr": 0.05}, "scl": {}, "soft": {}, "rigl": {"interval": 3}}


def graph_of(model):
    return sp.trace(model.eval(), samples()[0][:1])


def costs_of(graph, block=1, base=0.2, dense=None):
    """A runtime that takes a millisecond for so many MACs, of channels in whole blocks, and so long for any network."""
    terms = graph.macs_terms
    coefficients = tuple(term.constant / term.divisor / graph.macs() for term in terms)
    axes = tuple(tuple((axis, block) for axis in term.axes) for term in terms)
    polynomial = Polynomial((base, *coefficients), ((), *axes))
    whole = {group.name: group.units for group in graph.groups}
    return WidthCosts(polynomial, dense or time_at(polynomial, graph, whole))


def time_at(polynomial, graph, widths):
    counter = sp.graph.WidthCounter(graph, lambda name, width: np.arange(width), {"ms": polynomial})
    return counter.count(widths)["ms"]


def staying(graph, widths):
    return {g.name: (torch.arange(g.units) < widths[g.name]).float() for g in graph.groups}


def test_the_time_of_widths_is_the_runtimes_at_whole_blocks_and_the_dense_ones_and_linear_between():
    graph = graph_of(Residual())  # of 6 and 5 channels
    cost = costs_of(graph, block=2)
    costs = ExpectedCosts(graph, torch.device("cpu"), cost)

    def expected(conv1, inner):
        return time_at(cost.latency, graph, {"conv1": conv1, "inner": inner}) / cost.dense_ms

    def share(conv1, inner):
        return float(costs.share("speedup", staying(graph, {"conv1": conv1, "inner": inner})))

    for widths in ((6, 5), (2, 4), (4, 2), (6, 2), (2, 5)):
        assert share(*widths) == pytest.approx(expected(*widths), rel=1e-6)
    assert expected(6, 3) == expected(6, 4)
    assert share(6, 3) == pytest.approx((share(6, 2) + share(6, 4)) / 2)
    half = {**staying(graph, {"conv1": 6, "inner": 5}), "inner": torch.tensor([1.0, 1.0, 1.0, 1.0, 0.5])}
    assert float(costs.share("latency_ms", half)) == pytest.approx((share(6, 4) + share(6, 5)) / 2)
    assert [float(in_blocks(torch.tensor(w), 10, 4)) for w in (3.0, 4.0, 8.0, 9.0, 10.0)] == [3, 4, 8, 10, 12]
    assert float(in_blocks(torch.tensor(1.5), 3, 4)) == 2


def test_every_unit_has_a_price_in_time():
    graph = graph_of(Residual())
    gates = {name: (0.9 * each).requires_grad_() for name, each in staying(graph, {"conv1": 6, "inner": 5}).items()}
    ExpectedCosts(graph, torch.device("cpu"), costs_of(graph, block=4)).share("latency_ms", gates).backward()
    assert all((gate.grad > 0).all() for gate in gates.values())


def test_costs_are_kept_as_plain_data_and_are_of_one_network():
    graph, widths = graph_of(Residual()), {"conv1": 3, "inner": 2}
    cost = costs_of(graph, block=2)
    again = WidthCosts.of_state(cost.state())
    assert again.dense_ms == cost.dense_ms
    assert time_at(again.latency, graph, widths) == time_at(cost.latency, graph, widths)
    assert cost.are_of(graph_of(Residual()))
    assert not cost.are_of(graph_of(network()))


@pytest.mark.parametrize("method", METHODS)
def test_a_training_closes_units_until_the_network_is_as_fast_as_asked(tmp_path, method):
    images, labels = samples()
    cost = costs_of(graph_of(Residual()), block=2)
    spec = TrainSpec(
        epochs=4, batch_size=32, lr=0.02, opt="adamw", methods=[{"method": method, **METHODS[method], **SPEED}]
    )
    trained = fit(
        Residual(), TensorDataset(images, labels), spec, seed=0, checkpoint=tmp_path / "c", cut=ComingCut(cost=cost)
    )
    graph = graph_of(trained)
    allocation = "threshold" if method in ("l0", "gdp", "scl") else "uniform"
    plan = sp.plan(graph, sp.score(graph, "l2"), {"speedup": 1.5}, allocation=allocation, align=1, cost=cost)
    took = time_at(cost.latency, graph, plan.widths)
    assert took <= cost.dense_ms / 1.5
    zero = zero_units(trained, graph)
    for name, entry in plan.groups.items():
        gone = sorted({*range(entry["units"])} - {*entry["kept"]})
        if method == "soft":  # whose zero filters are not all that a unit has
            gone = [unit for unit in gone if zero[name][unit]]
        assert zero[name].nonzero()[:, 0].tolist() == gone
    assert sum(int(units.sum()) for units in zero.values()) >= 2


@pytest.mark.parametrize("method", ["l0", "soft"])
def test_a_training_goes_on_by_the_costs_that_it_began_with(tmp_path, method):
    spec = TrainSpec(epochs=3, batch_size=32, lr=0.02, methods=[{"method": method, **METHODS[method], **SPEED}])
    cost = costs_of(graph_of(network()))
    cut, other = ComingCut(cost=cost), ComingCut(cost=replace(cost, dense_ms=0.7 * cost.dense_ms))
    data = TensorDataset(*samples())
    whole = fit(network(), data, spec, seed=5, checkpoint=tmp_path / "whole", cut=cut)
    changed = fit(network(), data, spec, seed=5, checkpoint=tmp_path / "other", cut=other)
    assert not equal(whole, changed)

    def interrupt(step, steps, shown):
        if step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network(), data, spec, seed=5, checkpoint=tmp_path / "part", cut=cut, progress=interrupt)
    assert equal(whole, fit(network(), data, spec, seed=5, checkpoint=tmp_path / "part", cut=other))


def test_what_is_refused(tmp_path):
    spec = TrainSpec(epochs=1, batch_size=32, lr=0.1, methods=[{"method": "l0", **SPEED}])
    data, cost = TensorDataset(*samples()), costs_of(graph_of(Residual()))
    with pytest.raises(RecipeError, match="method l0 has a budget of speedup, and what widths cost is not known here"):
        fit(network(), data, spec, seed=0, checkpoint=tmp_path / "c")
    with pytest.raises(RecipeError, match="was measured on other channels than a training sample's graph has"):
        fit(network(), data, spec, seed=0, checkpoint=tmp_path / "c", cut=ComingCut(cost=cost))
    with pytest.raises(RecipeError, match=r"l0 has a budget of speedup, and what widths cost is measured only where"):
        recipe_of({"method": "l0", "budget": {"speedup": 1.5}})


def test_a_run_trains_by_the_costs_that_it_plans_by(tmp_path, monkeypatch):
    monkeypatch.setattr(costs_of_runs, "learn_cost", lambda graph, *_, **options: by_macs(graph, 2.0, {}, Runtime()))
    monkeypatch.setattr(costs_of_runs, "check_may_time", lambda *_: None)
    recipe = recipe_of("l0", allocation="threshold", budget={"latency_ms": 1.0}, align=1)
    (line,) = recipe.cautions
    assert line.startswith("train.methods: l0 plans by what widths cost as measured before the training, and prune by")
    runner = runner_of(recipe, Reporter(Console(file=io.StringIO(), width=200)), Artefacts(tmp_path))
    dense, graph = runner.value("dense"), runner.value("graph")
    zero = zero_units(dense, graph)
    kept = {name: np.flatnonzero(~units.numpy()) for name, units in zero.items()}
    assert 0.4 < graph.macs(kept) / graph.macs() <= 0.5  # time goes with MACs in this one
