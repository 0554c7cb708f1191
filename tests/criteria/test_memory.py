"""Scores under a bound of memory: the same where that is possible, as good as they can be where not, and said."""

import gc
import importlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.calibration.batches import Batch
from structprune.criteria import CRITERIA
from structprune.criteria.local_search import elimination
from structprune.criteria.memory_bounds import in_parts, joined, portions
from structprune.criteria.reconstruction import contributions, refitted
from structprune.criteria.views import Consumer, GroupView
from structprune.errors import ModelError
from structprune.ops import Inputs
from tests.example_networks import Chain, randomise
from tests.recover.test_wide_layers import Largest

DATA = torch.randn(40, 3, 10, 10, generator=torch.Generator().manual_seed(7))
scan = importlib.import_module("structprune.criteria.scan")


@pytest.mark.parametrize("name", ["variance", "apoz", "chip", "taylor_activation", "taylor"])
def test_fewer_images_at_a_time_give_the_same_scores(name):
    graph = sp.trace(randomise(Chain()), DATA[:1])
    whole, bounded = sp.score(graph, name, DATA), sp.score(graph, name, DATA, memory=1e5)
    for group, values in whole.values.items():
        np.testing.assert_allclose(bounded.values[group], values, rtol=2e-3)


def wide():
    """Filters of very different sizes, so that few rows are enough to tell them apart."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4)
    )
    with torch.no_grad():
        model[0].weight *= torch.linspace(0.05, 4, 24)[torch.randperm(24)].reshape(-1, 1, 1, 1)
    return model.eval()


@pytest.mark.parametrize(("name", "memory"), [("thinet", 1e6), ("thinet_forward", 1e6), ("osscar", 2.5e6)])
def test_rows_and_matrices_keep_to_the_bound(name, memory):
    """The last layer has 1,024 inputs, of which a matrix takes 8 MB; the rows of the middle one take 0.4."""
    model = wide()
    graph = sp.trace(model, DATA[:1])
    widths = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.6}, align=1).widths
    with Largest() as seen:
        found = sp.score(graph, name, DATA, widths=widths, memory=memory)
    assert seen.size <= memory
    assert not found.unscored
    assert any(note.startswith("to keep to memory (") for note in found.notes)
    whole = sp.score(graph, name, DATA, widths=widths)
    assert not any("memory" in note for note in whole.notes)
    ranks = [np.argsort(np.argsort(scores.values["0"])) for scores in (found, whole)]
    assert np.corrcoef(*ranks)[0, 1] > 0.5  # alike, if not the same


def test_the_scan_keeps_to_the_bound_too():
    model = wide()
    graph = sp.trace(model, DATA[:1])
    scores = sp.score(graph, "l1")
    with Largest() as seen:
        found = sp.sensitivity(graph, scores, DATA, memory=2.5e6)
    assert seen.size <= 2.5e6
    assert any("was taken in" in note for note in found.notes)
    whole = sp.sensitivity(graph, scores, DATA)
    assert not whole.notes
    for name, losses in whole.losses.items():
        kept = sorted(losses)[-3:-1]  # nearly all stay
        assert all(found.losses[name][count] < 10 * losses[count] + 0.05 for count in kept)


class Maps(nn.Module):
    """Its outputs are maps: 40 of them take 4 MB."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 256, 1)

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


def test_outputs_that_do_not_fit_are_not_looked_at_and_that_is_said():
    graph = sp.trace(Maps().eval(), DATA[:1])
    found = sp.sensitivity(graph, sp.score(graph, "l1"), DATA, memory=4e6)
    assert any("the scan looked at 2 of 3 batches" in note for note in found.notes)
    assert set(found.losses) == {"a"}


def group_of(consumers, units, kept, memory=2.0**31):
    made = torch.Generator().manual_seed(0)
    return GroupView("g", units, (), consumers=tuple(consumers), kept=kept, generator=made, memory=memory)


def consumer_of(units, places, outputs, rows):
    windows = torch.randn(rows, units, places) * torch.rand(units, 1) + 1
    return Consumer("m", torch.arange(units)[:, None], windows, torch.randn(outputs, units, places))


def test_parts_are_each_fitted_for_itself():
    consumer = consumer_of(12, 3, 4, 200)
    parts = in_parts(consumer, 5 * 8.0 * 36**2 / 3)
    assert [part.windows.shape[1] for part in parts] == [4, 4, 4]
    assert len(in_parts(consumer, 1e9)) == 1
    assert len(in_parts(consumer, 0)) == 12
    kept = torch.rand(12) > 0.4
    group = group_of(parts, 12, 6)
    weight, offset = joined([refitted(group, part, kept) for part in parts], 12)
    assert weight.shape == (4, 12, 3)
    assert not weight[:, ~kept].any()
    for start in (0, 4, 8):  # by numpy, with the same damping
        place = slice(start, start + 4)
        x = consumer.windows[:, place].flatten(1).double().numpy()
        x = x - x.mean(0)
        stays = kept[place].repeat_interleave(3).numpy()
        damping = np.sqrt(len(x) * 0.1 * (x**2).mean())
        given = consumer.weight[:, place].flatten(1).double().numpy()
        a = np.r_[x, damping * np.eye(12)]
        solution, *_ = np.linalg.lstsq(a[:, stays], a @ given.T, rcond=None)
        np.testing.assert_allclose(weight[:, place].flatten(1).numpy()[:, stays], solution.T, rtol=1e-3, atol=1e-4)
    mean = consumer.windows.mean(0)
    torch.testing.assert_close(offset, ((consumer.weight - weight) * mean).sum((1, 2)))


def test_elimination_of_parts_is_of_consumers_that_have_nothing_in_common():
    consumer = consumer_of(10, 2, 3, 100)
    parts = in_parts(consumer, 5 * 8.0 * 20**2 / 2)
    assert len(parts) == 2
    together = elimination(group_of(parts, 10, 10))  # none goes: what each would cost alone
    for part in parts:
        alone = elimination(group_of([part], 10, 10))
        here = part.index[:, 0]
        torch.testing.assert_close(together[here], alone[here])
        assert not alone[[unit for unit in range(10) if unit not in here]].any()


def test_contributions_a_few_rows_at_a_time():
    consumer = consumer_of(6, 4, 3, 300)
    found = [contributions(group_of([consumer], 6, 3, memory), consumer) for memory in (2e4, 2.0**31)]
    torch.testing.assert_close(found[0], found[1])


def test_pairs_that_do_not_fit_leave_the_group_whole_with_the_reason():
    graph = sp.trace(wide(), DATA[:1])
    widths = {group.name: group.units // 2 for group in graph.groups}
    found = sp.score(graph, "thinet", DATA, widths=widths, memory=8e3)
    assert set(found.unscored) == {"0"}
    assert "pairs of its 24 units take 13.5 KiB, and memory allows 7.81 KiB" in found.unscored["0"]
    assert set(found.values) == {"2"}
    assert set(found.widths) == {"2"}


def test_distances_in_parts_are_those_of_all_filters(monkeypatch):
    graph = sp.trace(wide(), DATA[:1])
    whole = sp.score(graph, "fpgm").values
    monkeypatch.setattr(importlib.import_module("structprune.criteria.geometric"), "AT_ONCE", 8 * 27 * 5)
    for name, values in sp.score(graph, "fpgm").values.items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-6)
        filters = graph.model.get_submodule(name).weight.detach().flatten(1).double()
        np.testing.assert_allclose(values, torch.cdist(filters, filters).sum(1), rtol=1e-6)


def test_portions_of_a_batch():
    x, mask = torch.arange(12.0).reshape(6, 2), torch.tensor(3.0)
    batch = Batch(Inputs((x,), {"scale": mask}), torch.arange(6))
    found = list(portions(batch, 4))
    assert [part.images for part in found] == [4, 2]
    assert torch.equal(torch.cat([part.inputs.args[0] for part in found]), x)
    assert all(part.inputs.kwargs["scale"] is mask for part in found)
    assert found[1].labels.tolist() == [4, 5]
    assert list(portions(batch, 6)) == [batch]


def failing(group):
    if group.name == "0":
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 34359738368 bytes.")
    return torch.rand(group.units)


def test_an_allocation_that_fails_costs_one_group_and_no_more(monkeypatch):
    graph = sp.trace(wide(), DATA[:1])
    found = sp.score(graph, failing)
    assert found.unscored == {"0": "there was no memory left to score it"}
    assert any("0 can't be scored" in note and "\n" not in note for note in found.notes)
    plan = sp.plan(graph, found, {"channels": 0.8}, align=1)
    assert plan.widths["0"] == 24
    scores = sp.score(graph, "l1")
    whole = sp.sensitivity(graph, scores, DATA).losses
    calls = []

    def divergence(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return as_is(*arguments)

    as_is = scan.divergence
    monkeypatch.setattr(scan, "divergence", divergence)
    found = sp.sensitivity(graph, scores, DATA)
    assert found.losses == {"2": whole["2"]}  # its weights were put back
    assert any("0 was left out of the scan" in note for note in found.notes)
    monkeypatch.setattr("structprune.criteria.collector.Batch", Batch)
    for name in ("variance", "apoz", "taylor"):
        monkeypatch.setattr(Inputs, "call", lambda self, model: (_ for _ in ()).throw(MemoryError("no")))
        with pytest.raises(ModelError, match=f"there is no memory left to score by {name}: give fewer images"):
            sp.score(graph, name, DATA)


def test_every_criterion_takes_a_bound():
    graph = sp.trace(randomise(Chain()), DATA[:1])
    widths = {group.name: max(1, group.units // 2) for group in graph.groups}
    for name in CRITERIA:
        found = sp.score(graph, name, DATA, widths=widths, memory=1e6)
        assert found.values, name


def tensors():
    """The storages of all tensors that Python has, by where they lie, in bytes."""
    found = [x for x in gc.get_objects() if type(x) is torch.Tensor]
    return {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in found}


@pytest.mark.parametrize("name", ["thinet", "apoz", "scan", "recovery"])
def test_what_a_pass_holds_is_let_go_without_a_search_for_cycles(name):
    """Activations and windows of groups stayed until Python looked for cycles, gigabytes of them on ResNet-50."""
    model = wide()
    graph = sp.trace(model, DATA[:1])
    scores = sp.score(graph, "l1")
    plan = sp.plan(graph, scores, {"channels": 0.6}, align=1)
    slim = sp.prune(model, plan)
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        if name == "scan":
            sp.sensitivity(graph, scores, [DATA[:20], DATA[20:]], ratios=[0.5])
        elif name == "recovery":
            sp.recover(model, slim, plan, [DATA[:20], DATA[20:]])
        else:
            sp.score(graph, name, DATA, widths=plan.widths)
        left = {place: size for place, size in tensors().items() if place not in before}
    finally:
        gc.enable()
    assert sum(left.values()) < 10_000  # one batch's results of the first layer are 250,000 bytes
