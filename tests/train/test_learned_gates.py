"""Masks that are trained straight through their step (SCL) and polarised gates (GDP), against their definitions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from structprune import plan, prune, score, trace
from structprune.errors import BudgetError
from structprune.train import fit
from structprune.train.learned_gates import PENALTY
from structprune.train.methods.gdp import Gdp, GdpSpec, polarised, shrunk
from structprune.train.methods.scl import Scl, SclSpec, normalised
from tests.train.small_training import samples
from tests.train.test_gates import spec_of
from tests.train.test_interleaved import Grouped
from tests.train.test_masks import BATCH, begun
from tests.train.test_sparse_methods import Residual

CUT = {"budget": {"macs": 0.5}, "align": 1}


def gradients_by_hand(gates):
    """Those of the loss by the gates of a network that multiplies channels by them where layers take them in."""
    leaves = {name: gate.detach().clone().requires_grad_() for name, gate in gates.items()}
    model, stream, inner = Residual(), leaves["conv1"][:, None, None], leaves["inner"][:, None, None]
    x = model.bn1(model.conv1(samples()[0])).relu()
    x = x + model.bn2(model.conv2(model.bn0(model.inner(x * stream)).relu() * inner))
    F.cross_entropy(model.head((x * stream).mean((2, 3))), samples()[1]).backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def backward(method, model):
    model.zero_grad()
    batch = method.mix(BATCH)
    F.cross_entropy(batch.inputs.call(model), batch.labels).backward()
    method.after_backward(model)


def within(method):
    return {name: inside.bool().tolist() for name, inside in method.inside.items()}


def test_masks_move_by_gradients_that_are_normalised_in_each_group():
    model = Residual()
    method = begun(Scl(SclSpec(**CUT)), model, torch.optim.SGD(model.parameters(), lr=0.05))
    assert all(all(units) for units in within(method).values())  # nothing has to go yet
    expected = {name: torch.zeros(len(units)) for name, units in within(method).items()}
    for updates in (0, 15):  # the second with units that are out
        method.updates = updates
        method.choose()
        inside = {name: each.clone() for name, each in method.inside.items()}
        for name, gradient in gradients_by_hand(inside).items():
            expected[name] -= 0.05 * gradient / gradient.square().mean().sqrt()
        backward(method, model)
        for name, mask in method.numbers.items():
            torch.testing.assert_close(mask.detach(), expected[name], rtol=1e-4, atol=1e-6)
    assert not all(each.all() for each in inside.values())
    for parameter, start in zip(model.parameters(), Residual().parameters(), strict=True):
        assert torch.equal(parameter, start)


def test_of_each_group_as_many_units_stay_as_a_plan_has_to_leave():
    model = nn.Sequential(nn.Conv2d(1, 30, 3), nn.ReLU(), nn.Flatten(), nn.Linear(480, 3))
    for ratio in ({}, {"max_ratio": 0.5}, {"max_ratio": 1.0}):
        spec = SclSpec(budget={"macs": 0.999}, align=1, ramp=0, **ratio)
        method = begun(Scl(spec), model, torch.optim.SGD(model.parameters(), lr=0.05))
        graph = method.plan.graph
        with pytest.raises(BudgetError):
            plan(graph, score(graph, "l1"), {"channels": max(method.least["0"] - 1, 0.3) / 30}, align=1, **ratio)
        least = plan(graph, score(graph, "l1"), {"channels": (method.least["0"] + 0.5) / 30}, align=1, **ratio)
        assert least.widths == method.least


def test_gradients_of_nothing_stay_nothing():
    assert not normalised(torch.zeros(3)).any()
    assert float(normalised(torch.tensor([1.0, -7.0])).square().mean()) == pytest.approx(1)


def test_the_smallest_masks_are_out_as_many_as_the_budget_has_it_by_then():
    model = Residual()
    method = begun(
        Scl(SclSpec(ramp=0.5, budget={"macs": 0.2}, align=1)), model, torch.optim.SGD(model.parameters(), lr=0.05)
    )
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for mask in method.numbers.values():
            mask.copy_(torch.randn(len(mask), generator=generator))
        method.numbers["inner"] -= 5  # one of which stays nevertheless
    graph, values = method.plan.graph, {name: mask.tolist() for name, mask in method.numbers.items()}
    ordered = sorted((value, name, unit) for name, each in values.items() for unit, value in enumerate(each))
    ordered = [entry for entry in ordered if entry[0] < max(values[entry[1]])]
    for updates, share in ((0, 1.0), (10, 0.6), (20, 0.2), (40, 0.2)):
        method.updates = updates
        method.choose()
        for count in range(len(ordered) + 1):
            out = {(name, unit) for _, name, unit in ordered[:count]}
            kept = {name: [u for u in range(len(each)) if (name, u) not in out] for name, each in values.items()}
            if graph.macs(kept) / graph.macs() <= share:
                break
        assert within(method) == {name: [u in kept[name] for u in range(len(each))] for name, each in values.items()}
    assert sum(within(method)["inner"]) == 1


def test_units_that_are_out_are_gone_while_training_and_what_ends_an_epoch_has_the_largest_masks():
    model, slim = Residual(), Residual()
    method = begun(Scl(SclSpec(**CUT)), model, torch.optim.SGD(model.parameters(), lr=0.05))
    backward(method, model)
    method.updates = 20
    method.choose()
    inner = method.inside["inner"]
    assert 0 < int(inner.sum()) < len(inner)
    batch = method.mix(BATCH)
    with torch.no_grad():
        slim.conv2.weight.mul_(inner[None, :, None, None])
        slim.inner.weight.mul_(method.inside["conv1"][None, :, None, None])
        slim.head.weight.mul_(method.inside["conv1"])
    torch.testing.assert_close(batch.inputs.call(model), slim(samples()[0]))
    method.after_epoch(model, 1)
    kept = method.numbers["inner"].detach()[model.conv2.weight.flatten(2).any(2).any(0)]
    others = method.numbers["inner"].detach()[~model.conv2.weight.flatten(2).any(2).any(0)]
    assert len(others)
    assert kept.min() > others.max()


def test_polarised_gates_and_their_proximal_step_by_their_definition():
    x = torch.tensor([0.0, 0.1, -0.2, 3.0])
    torch.testing.assert_close(polarised(x, 0.04), torch.tensor([0.0, 0.2, 0.5, 9 / 9.04]))
    assert float(polarised(torch.tensor(0.0), 1e-9)) == 0
    grid, by = torch.linspace(-2, 2, 4001, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    for value in (-1.2, -0.3, 0.1, 0.31, 1.7):
        nearest = grid[(0.5 * (grid - value).square() + by * grid.abs()).argmin()]
        assert float(shrunk(torch.tensor(value, dtype=torch.float64), by)) == pytest.approx(float(nearest), abs=1e-3)
    assert float(shrunk(torch.tensor(0.29), torch.tensor(0.3))) == 0


def test_gates_move_by_the_loss_and_are_shrunk_by_the_price_of_their_units():
    model = Residual()
    spec = GdpSpec(lr=0.002, budget={"macs": 0.1}, align=1)
    method = begun(Gdp(spec), model, torch.optim.SGD(model.parameters(), lr=0.05))
    method.updates, method.strength = 10, 20.0
    epsilon, eta = 0.1 * (1e-4 / 0.1) ** 0.25, 0.002 * 11
    assert method.epsilon == pytest.approx(epsilon)
    with torch.no_grad():
        method.numbers["inner"].copy_(torch.tensor([0.2, 0.4, 0.005, 0.0, 0.9]))
    before = {name: x.detach().clone() for name, x in method.numbers.items()}
    gates = {name: x.square() / (x.square() + epsilon) for name, x in before.items()}
    share = method.costs.share
    excess = float(share("macs", gates)) - 0.55  # half way of the ramp
    pull = eta * (20.0 + PENALTY * excess)
    assert pull > 0
    slopes = gradients_by_hand(gates)
    backward(method, model)
    for name, x in before.items():
        by_loss = x - eta * slopes[name] * 2 * x * epsilon / (x.square() + epsilon).square()
        smaller = by_loss.abs().argsort()[: len(x) - 1]
        for unit in range(len(x)):
            ends = [{**gates, name: gates[name].index_fill(0, torch.tensor(unit), end)} for end in (0.0, 1.0)]
            price = float(share("macs", ends[1]) - share("macs", ends[0])) if unit in smaller else 0.0
            expected = by_loss[unit].sign() * max(0.0, float(by_loss[unit].abs()) - pull * price)
            assert float(method.numbers[name][unit].detach()) == pytest.approx(float(expected), rel=1e-3, abs=1e-5)
    assert method.numbers["inner"][2:4].tolist() == [0, 0]
    assert method.strength == pytest.approx(20.0 + excess, rel=1e-4)


def test_no_more_gates_go_to_zero_at_once_than_the_cost_has_to_fall_by():
    model = Residual()
    method = begun(Gdp(GdpSpec(lr=1e-9, **CUT)), model, torch.optim.SGD(model.parameters(), lr=0.05))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for x in method.numbers.values():
            x.copy_(0.5 + torch.rand(len(x), generator=generator))
    values = {name: x.tolist() for name, x in method.numbers.items()}
    method.updates, method.strength = 20, 1e12  # all of them are below their price
    backward(method, model)
    ordered = sorted((value, name, unit) for name, each in values.items() for unit, value in enumerate(each))
    ordered = [entry for entry in ordered if entry[0] < max(values[entry[1]])]
    graph = method.plan.graph
    for count in range(len(ordered) + 1):
        out = {(name, unit) for _, name, unit in ordered[:count]}
        kept = {name: [u for u in range(len(each)) if (name, u) not in out] for name, each in values.items()}
        if graph.macs(kept) / graph.macs() < 0.5:
            break
        expected = kept
    assert {name: x.nonzero()[:, 0].tolist() for name, x in method.numbers.items()} == expected
    assert count > 2


@pytest.mark.parametrize("align", [1, 4])
def test_more_gates_at_zero_than_the_budget_asks_for_cost_no_unit_that_is_open(align):
    """Of blocks that stay equally long, and of widths that are multiples, not all that are zero can go."""
    model, images = Grouped().train(), samples()[0]
    spec = GdpSpec(budget={"channels": 0.75}, align=align)
    method = begun(Gdp(spec), model, torch.optim.SGD(model.parameters(), lr=0.05))
    closed = {"first": [0, 1, 2, 9, 10, 11], "blocks": [0, 1, 2, 3, 4, 5, 9, 10, 11, 12]}
    with torch.no_grad():
        for name, units in closed.items():
            method.numbers[name] += torch.rand(16, generator=torch.Generator().manual_seed(1))
            method.numbers[name][units] = 0
    method.updates = 40
    method.after_epoch(model, 4)
    model.eval()
    graph = trace(model, images[:1])
    cut = plan(graph, score(graph, "l1"), {"channels": 0.75}, allocation="threshold", align=align)
    assert cut.widths == ({"first": 10, "blocks": 8} if align == 1 else {"first": 12, "blocks": 8})
    torch.testing.assert_close(prune(model, cut)(images), model(images), rtol=1e-4, atol=1e-5)


def test_gates_end_at_exactly_zero_or_near_one_within_the_budget(tmp_path, monkeypatch):
    methods, original = [], Gdp.start

    def watched(self, training):
        methods.append(self)
        original(self, training)

    monkeypatch.setattr(Gdp, "start", watched)
    spec = spec_of("gdp", 12)
    fit(Residual(), TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c")
    gates = methods[0].final_gates()
    values = torch.cat([*gates.values()])
    assert methods[0].epsilon == pytest.approx(1e-4)
    assert (values == 0).sum() >= 2
    assert ((values == 0) | (values > 0.9)).all()
    assert float(methods[0].costs.share("macs", gates)) == pytest.approx(0.5, abs=0.15)
