"""Removal of a few units every few updates (Molchanov), against its definition."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import structprune as sp
from structprune.errors import RecipeError, StructPruneError
from structprune.plan.allocations import Load
from structprune.plan.budget import Choice
from structprune.recipe import TrainSpec
from structprune.train import fit
from structprune.train.removal_steps import RemovalSteps
from structprune.train.zero_units import zero_units
from tests.train.small_training import equal, interrupted, network, samples
from tests.train.test_planned_methods import recipe_of
from tests.train.test_sparse_methods import Residual

HALF = {"budget": {"channels": 0.5}, "align": 1}
IMAGES, LABELS = samples()


def gated_loss(model, stream, inner):
    """The loss with a gate on each unit, wherever layers take it in."""
    stream, inner = stream[:, None, None], inner[:, None, None]
    x = model.bn1(model.conv1(IMAGES)).relu()
    x = x + model.bn2(model.conv2(model.bn0(model.inner(x * stream)).relu() * inner))
    return F.cross_entropy(model.head((x * stream).mean((2, 3))), LABELS)


def by_hand(updates, interval, times):
    """SGD without momentum, and after `interval` updates the two of all units with the least mean of squared gradients
    of gates go, so many times; the gates stay at zero."""
    model = Residual().train()
    gates = [torch.ones(6), torch.ones(5)]  # of conv1 and inner
    totals = [torch.zeros(6), torch.zeros(5)]
    for update in range(1, updates + 1):
        leaves = [gate.clone().requires_grad_() for gate in gates]
        weights = list(model.parameters())
        slopes = torch.autograd.grad(gated_loss(model, *leaves), [*leaves, *weights])
        for total, slope in zip(totals, slopes[:2], strict=True):
            total += slope.square()
        for weight, slope in zip(weights, slopes[2:], strict=True):
            weight.data -= 0.1 * slope
        if update % interval == 0 and update <= times * interval:
            for _ in range(2):
                values = [
                    torch.where((gate > 0) & (gate.sum() > 1), total, torch.inf)  # one of each group stays
                    for gate, total in zip(gates, totals, strict=True)
                ]
                least = min((0, 1), key=lambda group: values[group].min())
                gates[least][values[least].argmin()] = 0
            totals = [torch.zeros(6), torch.zeros(5)]
    return model, gates


@pytest.mark.parametrize("updates", [3, 5, 10])
def test_the_units_go_whose_gates_have_the_least_mean_square_of_gradients(tmp_path, updates):
    options = {"method": "interleaved", "interval": 2, "units": 2, "end": 0.6, **HALF}
    spec = TrainSpec(epochs=10, batch_size=192, opt="momentum", momentum=0, lr=0.1, sched="constant", methods=[options])
    model = fit(Residual(), TensorDataset(IMAGES, LABELS), spec, seed=0, checkpoint=tmp_path / "c", until=updates)
    expected, (stream, inner) = by_hand(updates, 2, 3)
    assert int((stream == 0).sum() + (inner == 0).sum()) == {3: 2, 5: 4, 10: 6}[updates]
    zero = zero_units(model, sp.trace(model, IMAGES[:1]))
    assert torch.equal(zero["conv1"], stream == 0)
    assert torch.equal(zero["inner"], inner == 0)
    with torch.no_grad():
        for weight, gate in ((expected.conv2.weight, inner), (expected.inner.weight, stream)):
            weight *= gate[:, None, None]
        expected.head.weight *= stream
        for layer, gate in ((expected.conv1, stream), (expected.conv2, stream), (expected.inner, inner)):
            layer.weight *= gate[:, None, None, None]
    for key in ("conv1.weight", "inner.weight", "conv2.weight", "head.weight", "head.bias"):
        torch.testing.assert_close(model.state_dict()[key], expected.state_dict()[key], rtol=1e-3, atol=1e-4, msg=key)


def trained(tmp_path, model, notes=None, **options):
    """A network that is trained so, and which of its units are zero after each epoch."""
    spec = TrainSpec(epochs=6, batch_size=32, lr=0.02, methods=[{"method": "interleaved", "interval": 3, **options}])
    zeros = []

    def count(figures):
        zeros.append({name: units.clone() for name, units in zero_units(model, graph).items()})

    graph = sp.trace(model.eval(), IMAGES[:1])
    fit(
        model, TensorDataset(IMAGES, LABELS), spec, seed=0, checkpoint=tmp_path / "c", log=count,
        tell=(notes if notes is not None else []).append,
    )  # fmt: skip
    return model, zeros


def test_units_never_come_back_and_the_cut_removes_them_alone(tmp_path):
    model, zeros = trained(tmp_path, Residual(), **HALF)
    numbers = [sum(int(units.sum()) for units in each.values()) for each in zeros]
    assert 0 < numbers[0] < numbers[2]
    assert numbers[2:] == [numbers[2]] * 4  # the budget is met after half of the training
    for before, after in itertools.pairwise(zeros):
        assert all((after[name] | ~units).all() for name, units in before.items())
    graph = sp.trace(model.eval(), IMAGES[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.5}, allocation="threshold", align=1)
    assert sum(len(entry["kept"]) for entry in plan.groups.values()) == 11 - numbers[-1] == 5
    for name, entry in plan.groups.items():
        assert zeros[-1][name].nonzero()[:, 0].tolist() == sorted({*range(entry["units"])} - {*entry["kept"]})
    torch.testing.assert_close(sp.prune(model, plan)(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


class Grouped(nn.Module):
    """A convolution in two blocks, which stay equally long."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16)
        self.blocks, self.head = nn.Conv2d(16, 16, 3, groups=2), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.blocks(self.norm(self.first(x)).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("units", [None, 1])
def test_widths_stay_multiples_and_blocks_equally_long(tmp_path, units):
    notes = []
    model, zeros = trained(tmp_path, Grouped(), notes, budget={"macs": 0.4}, align=4, units=units)
    for each in zeros:
        for name in ("first", "blocks"):
            assert int(each[name][:8].sum()) == int(each[name][8:].sum())
            assert int(each[name].sum()) % 4 == 0
    graph = sp.trace(model.eval(), IMAGES[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.4}, allocation="threshold", align=4)
    for name, entry in plan.groups.items():
        assert zeros[-1][name].nonzero()[:, 0].tolist() == sorted({*range(entry["units"])} - {*entry["kept"]})
    assert notes == []  # one step of four units each time is enough


def test_units_that_were_too_many_go_at_once_which_is_said(tmp_path):
    notes = []
    _, zeros = trained(tmp_path, Residual(), notes, units=1, end=0.2, **HALF)
    assert sum(int(units.sum()) for units in zeros[-1].values()) == 6
    assert notes == [
        "interleaved: 1 units every 3 updates did not meet the budget by end=0.2 of training, and the 4 units that "
        "were too many went at once: raise units, or leave it out"
    ]


def test_the_last_removal_leaves_out_what_the_budget_can_do_without():
    graph = sp.trace(Residual().eval(), IMAGES[:1])
    options = [Choice(group, np.arange(1, group.units + 1)) for group in graph.groups]
    scores = {"conv1": np.array([5, 0.1, 6, 0.2, 7, -1]), "inner": np.array([0.4, 5, 6, 7, 8])}
    cost = {"conv1": 1, "inner": 10}

    def load(allowed):
        return Load(lambda widths: np.array([sum(cost[name] * width for name, width in widths.items()) / allowed]))

    steps = RemovalSteps(options, scores, {"conv1": 5, "inner": 5}, 1)
    assert [step[1:] for step in steps.steps[:4]] == [
        ("conv1", 5, 4), ("conv1", 4, 3), ("inner", 5, 4), ("conv1", 3, 2),
    ]  # fmt: skip
    assert [round(step[0], 6) for step in steps.steps[:4]] == [0.1, 0.2, 0.4, 5]
    assert steps.to_budget(load(53)) == {"conv1": 3, "inner": 5}
    assert steps.to_budget(load(52)) == {"conv1": 5, "inner": 4}  # not 3 and 4, which cost 43
    assert steps.to_budget(load(44.2)) == {"conv1": 4, "inner": 4}


@pytest.mark.parametrize("at", [4, 9, 15])
def test_an_interrupted_training_ends_the_same(tmp_path, at):
    options = {"method": "interleaved", "interval": 4, "end": 0.9, **HALF}  # removals within epochs of 6 updates
    spec = TrainSpec(epochs=3, batch_size=32, lr=0.02, methods=[options])
    whole = fit(network(), TensorDataset(IMAGES, LABELS), spec, seed=5, checkpoint=tmp_path / "whole")
    assert equal(whole, interrupted(spec, tmp_path, at=at))


def test_the_best_epoch_is_one_within_the_budget(tmp_path):
    notes, options = [], {"method": "interleaved", "interval": 5, "end": 1.0, **HALF}
    spec = TrainSpec(epochs=5, batch_size=128, lr=1e-9, methods=[options], keep_best=True)
    data, held_out = TensorDataset(IMAGES[64:], LABELS[64:]), TensorDataset(IMAGES[:64], LABELS[:64])
    fit(Residual(), data, spec, validation=held_out, seed=0, checkpoint=tmp_path / "c", tell=notes.append)
    assert "after epoch 5 of the 5" in notes[0]


def test_what_is_refused_and_what_is_said(tmp_path):
    recipe = recipe_of("interleaved", align=2)
    assert recipe.train.methods[0].align == 2
    assert recipe.cautions == [
        "train.methods: interleaved sets weights of units to zero, and a cut by prune.allocation=uniform may remove "
        "others: choose threshold"
    ]
    assert recipe_of("interleaved", allocation="threshold").cautions == []
    for options, message in (
        ({"interval": 7, **HALF}, "removes units every 7 updates, and end=0.5 of this training's 12 comes before"),
        ({"budget": {"channels": 0.01}}, "budget channels .* can't be met"),
    ):
        spec = TrainSpec(epochs=2, batch_size=32, lr=0.1, methods=[{"method": "interleaved", "interval": 2, **options}])
        with pytest.raises(StructPruneError, match=message):
            fit(network(), TensorDataset(IMAGES, LABELS), spec, seed=0, checkpoint=tmp_path / "c")
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    spec = TrainSpec(epochs=1, batch_size=32, lr=0.1, methods=[{"method": "interleaved", "interval": 1, **HALF}])
    with pytest.raises(RecipeError, match="method interleaved needs channels that can go"):
        fit(plain, TensorDataset(IMAGES, LABELS), spec, seed=0, checkpoint=tmp_path / "d")
