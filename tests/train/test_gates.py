"""Gates on coupled units: what they do to a network, what it costs in the mean, hard concrete ones (L0), and what all
methods that learn gates hold to."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import structprune as sp
from structprune.errors import BudgetError, RecipeError
from structprune.recipe import TrainSpec
from structprune.records import Scores
from structprune.train import fit
from structprune.train.expected_costs import ExpectedCosts
from structprune.train.gated_units import GatedUnits
from structprune.train.methods.l0 import BETA, GAMMA, ZETA, probability_open, sample, settled
from structprune.train.zero_units import zero_units
from tests.train.small_training import equal, interrupted, network, samples
from tests.train.test_planned_methods import recipe_of
from tests.train.test_sparse_methods import Residual

CUT = {"budget": {"macs": 0.5}, "align": 1}


def gates_of(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {group.name: torch.rand(group.units, generator=generator) for group in graph.groups}


class Attention(nn.Module):
    """One block over tokens, whose heads and channels of a head are units on the same positions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.qkv, self.leave = nn.Linear(6, 12), nn.Linear(12, 36), nn.Linear(12, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = self.enter(x)
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, 4, 3).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, scale=0.5)
        return self.head(self.leave(attended.transpose(1, 2).reshape(batch, length, 12)).mean(1))


def test_gates_multiply_the_channels_that_layers_take_in_and_get_their_gradients():
    model, other = Residual().eval(), Residual().eval()
    images, labels = samples()
    graph = sp.trace(model, images[:1])
    gates = {name: gate.requires_grad_() for name, gate in gates_of(graph).items()}
    by_hand = {name: gate.detach().clone().requires_grad_() for name, gate in gates.items()}
    units = GatedUnits(model, graph, list(gates))
    units.put_in(gates)
    outputs = model(images)
    F.cross_entropy(outputs, labels).backward()
    units.backward()

    stream, inner = by_hand["conv1"][:, None, None], by_hand["inner"][:, None, None]
    x = other.bn1(other.conv1(images)).relu()
    x = x + other.bn2(other.conv2(other.bn0(other.inner(x * stream)).relu() * inner))
    expected = other.head((x * stream).mean((2, 3)))
    F.cross_entropy(expected, labels).backward()
    torch.testing.assert_close(outputs, expected)
    for name, gate in by_hand.items():
        torch.testing.assert_close(gates[name].grad, gate.grad)
    for (key, parameter), plain in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, plain), key  # the weights without gates are back
        torch.testing.assert_close(parameter.grad, plain.grad)


@pytest.mark.parametrize("make", [lambda: (Residual(), samples()[0][:4]), lambda: (Attention(), torch.randn(4, 5, 6))])
def test_a_folded_network_is_the_slim_one_where_its_gates_are_zero(make):
    model, inputs = make()
    graph = sp.trace(model.eval(), inputs[:1])
    gates = gates_of(graph, seed=1)
    units = GatedUnits(model, graph, list(gates))
    assert len(units.groups) >= 2
    before = [parameter.clone() for parameter in model.parameters()]
    plan = sp.plan(graph, sp.score(graph, "random", seed=2), {"macs": 0.5}, align=1)
    gated = {group.name for group in units.groups}
    for name, gate in gates.items():
        gate[[unit for unit in range(len(gate)) if unit not in plan.groups[name]["kept"]]] = 0
    units.fold({name: gates[name] for name in gated})
    zero = zero_units(model, graph)
    for name in gated:
        assert torch.equal(zero[name], gates[name] == 0)
    only = {name: gates[name].numpy() for name in gated}
    unscored = {name: "no gates" for name in gates if name not in gated}
    widths = {name: int((gate > 0).sum()) if name in gated else len(gate) for name, gate in gates.items()}
    scores = Scores("gates", only, unscored)
    options = {"allocation": lambda *_: widths, "align": 1, "max_ratio": 1.0}
    slim = sp.prune(model, sp.plan(graph, scores, {"channels": 1.0}, **options))
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(slim(inputs), model(inputs), rtol=1e-5, atol=1e-6)
    units.take_out()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("make", [lambda: (Residual(), samples()[0][:1]), lambda: (Attention(), torch.randn(1, 5, 6))])
def test_costs_in_the_mean_are_the_graphs_own_where_nothing_is_left_to_chance(make):
    model, inputs = make()
    graph = sp.trace(model.eval(), inputs)
    costs = ExpectedCosts(graph, torch.device("cpu"))
    stays = {name: (gate > 0.4).float() for name, gate in gates_of(graph).items()}
    kept = {name: np.flatnonzero(each.numpy()) for name, each in stays.items()}
    assert float(costs.share("macs", stays)) == pytest.approx(graph.macs(kept) / graph.macs(), rel=1e-6)
    assert float(costs.share("params", stays)) == pytest.approx(graph.params(kept) / graph.params(), rel=1e-6)
    total = sum(len(each) for each in stays.values())
    assert float(costs.share("channels", stays)) == pytest.approx(sum(map(len, kept.values())) / total)
    assert float(costs.share("macs", {})) == pytest.approx(1)


def test_costs_in_the_mean_are_means():
    graph = sp.trace(Residual().eval(), samples()[0][:1])
    costs, probabilities = ExpectedCosts(graph, torch.device("cpu")), gates_of(graph)
    generator = torch.Generator().manual_seed(5)
    draws = []
    for _ in range(400):
        stays = {name: torch.bernoulli(each, generator=generator) for name, each in probabilities.items()}
        draws.append(float(costs.share("macs", stays)))
    error = np.std(draws) / len(draws) ** 0.5
    assert abs(float(costs.share("macs", probabilities)) - np.mean(draws)) < 4 * error


def test_hard_concrete_gates_by_their_definition():
    assert (BETA, GAMMA, ZETA) == (2 / 3, -0.1, 1.1)
    for log_alpha in (-1.0, 0.0, 1.5):
        log_odds = log_alpha - 2 / 3 * math.log(0.1 / 1.1)
        assert float(probability_open(torch.tensor(log_alpha))) == pytest.approx(1 / (1 + math.exp(-log_odds)))
        sigmoid = 1 / (1 + math.exp(-log_alpha))
        assert float(settled(torch.tensor(log_alpha))) == pytest.approx(min(1, max(0, sigmoid * 1.2 - 0.1)))
    assert float(settled(torch.tensor(-3.0))) == 0
    assert float(settled(torch.tensor(3.0))) == 1


def test_gates_are_drawn_from_the_hard_concrete_distribution():
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for log_alpha in (-1.0, 0.5):

        def distribution(x, log_alpha=log_alpha):  # of the stretched concrete one (equations 23 and 24)
            share = (np.asarray(x) + 0.1) / 1.2
            return 1 / (1 + np.exp(-(2 / 3 * np.log(share / (1 - share)) - log_alpha)))

        gates = sample(torch.tensor(log_alpha), uniform).numpy()
        open_share = float(probability_open(torch.tensor(log_alpha)))
        assert (gates > 0).mean() == pytest.approx(open_share, abs=0.01)
        assert (gates < 1).mean() == pytest.approx(distribution(1 - 1e-9), abs=0.01)
        inside = gates[(gates > 0) & (gates < 1)]
        bounds = [distribution(1e-9), distribution(1 - 1e-9)]
        uniform_again = (distribution(inside) - bounds[0]) / (bounds[1] - bounds[0])
        assert stats.kstest(uniform_again, "uniform").pvalue > 0.01


LEARNED = {"gdp": {"lr": 0.05}, "l0": {"lr": 0.3}, "scl": {}}


def spec_of(method="l0", epochs=4, **options):
    methods = [{"method": method, **LEARNED[method], **CUT, **options}]
    return TrainSpec(epochs=epochs, batch_size=32, lr=0.02, methods=methods, opt="adamw")


@pytest.mark.parametrize("method", LEARNED)
def test_a_training_closes_units_to_the_budget_and_the_cut_removes_exactly_these(tmp_path, method):
    images, labels = samples()
    trained = fit(Residual(), TensorDataset(images, labels), spec_of(method), seed=0, checkpoint=tmp_path / "c")
    graph = sp.trace(trained.eval(), images[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, allocation="threshold", align=1)
    zero = zero_units(trained, graph)
    assert sum(int(units.sum()) for units in zero.values()) >= 3
    for name, units in zero.items():
        gone = {*range(plan.groups[name]["units"])} - {*plan.groups[name]["kept"]} if name in plan.groups else set()
        assert {*units.nonzero()[:, 0].tolist()} == gone
    slim = sp.prune(trained, plan)
    torch.testing.assert_close(slim(images), trained(images), rtol=1e-4, atol=1e-5)


def test_the_cost_in_the_mean_goes_to_the_budget(tmp_path):
    from structprune.train.methods.l0 import L0

    costs = []
    original = L0.excess

    def watched(self):
        excess = original(self)
        costs.append(float(excess.detach()))
        return excess

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(L0, "excess", watched)
        fit(Residual(), TensorDataset(*samples()), spec_of(epochs=12), seed=0, checkpoint=tmp_path / "c")
    assert len(costs) == 72
    assert abs(costs[0]) < 0.15
    assert abs(np.mean(costs[-6:])) < 0.08


@pytest.mark.parametrize("method", LEARNED)
def test_an_interrupted_training_ends_the_same(tmp_path, method):
    spec = spec_of(method, 3)
    whole = fit(network(), TensorDataset(*samples()), spec, seed=5, checkpoint=tmp_path / "whole")
    assert equal(whole, interrupted(spec, tmp_path, at=9))


@pytest.mark.parametrize("method", LEARNED)
def test_what_is_refused_and_said(tmp_path, method):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with pytest.raises(RecipeError, match=f"method {method} needs channels that can go"):
        fit(plain, TensorDataset(*samples()), spec_of(method), seed=0, checkpoint=tmp_path / "c")
    impossible = spec_of(method, budget={"macs": 1e-9})
    with pytest.raises(BudgetError):
        fit(Residual(), TensorDataset(*samples()), impossible, seed=0, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=f"model_ema averages the weights that method {method} sets"):
        TrainSpec(epochs=1, lr=0.1, model_ema=True, methods=[method])
    (line,) = recipe_of(method).cautions
    assert line == (
        f"train.methods: {method} sets weights of units to zero, and a cut by prune.allocation=uniform may remove "
        "others: choose threshold"
    )
    assert recipe_of(method, allocation="threshold").cautions == []
    assert (
        "prune.criterion=random may remove others: choose l1 or l2"
        in (recipe_of(method, criterion="random").cautions[0])
    )
