"""Masks that are trained straight through their step (SCL), against their definitions."""

import pytest
import torch
from torch.nn import functional as F

from structprune.train.methods.scl import Scl, SclSpec, normalised
from tests.train.small_training import samples
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
