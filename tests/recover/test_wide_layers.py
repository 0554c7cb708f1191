"""Refits of layers whose second moments do not fit into the memory that is allowed."""

import importlib
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import structprune as sp
from structprune.memory_limits import allocation_failed
from structprune.recover.moments import Moments, full, ridge_solution
from structprune.recover.rows import rows_solution
from structprune.verify import expanded

least_squares = importlib.import_module("structprune.recover.least_squares")
FULL, SCALES = ({"method": "least_squares", "weights": weights} for weights in ("full", "scales"))


def rows_of(count, inputs, outputs, seed=0):
    """Rows with means far from zero, and what a layer makes of them, not exactly; and other weights to start from."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(count, inputs, generator=rng) * torch.rand(inputs, generator=rng) + 3
    true = torch.randn(outputs, inputs, generator=rng) / math.sqrt(inputs)
    y = x @ true.mT + 0.1 * torch.randn(count, outputs, generator=rng) + 5
    return x, y, true + 0.3 * torch.randn(outputs, inputs, generator=rng) / math.sqrt(inputs)


def cut(model, x, channels):
    graph = sp.trace(model, x)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": channels}, align=1)
    return plan, sp.prune(model, plan)


def in_parts(x, size):
    places = [slice(i, min(i + size, x.shape[1])) for i in range(0, x.shape[1], size)]
    return lambda: ((place, x[:, place]) for place in places)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("count", "inputs"), [(40, 90), (90, 40)])
def test_from_rows_as_by_brute_force(count, inputs, intercept):
    """min |y - W x - b|² + r · ridge · v · |W - W0|², solved by numpy as one system of rows."""
    x, y, weight = rows_of(count, inputs, 3)
    ridge, folds = 0.02, torch.zeros(count, dtype=torch.long)
    found = rows_solution(in_parts(x, 7), y, weight, torch.zeros(3), folds, ridge, intercept)
    a, b, given = x.double().numpy(), y.double().numpy(), weight.double().numpy()
    v = a.var(0).mean() if intercept else (a**2).mean()
    damping = np.sqrt(count * ridge * v)
    above = np.c_[a, np.full((count, 1), float(intercept))]
    below = np.c_[damping * np.eye(inputs), np.zeros((inputs, 1))]
    solution, *_ = np.linalg.lstsq(np.r_[above, below], np.r_[b, damping * given.T], rcond=None)
    np.testing.assert_allclose(found.weight.numpy(), solution[:-1].T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.bias.numpy(), solution[-1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("intercept", [True, False])
def test_from_rows_as_from_moments_with_the_ridge_chosen(intercept):
    x, y, weight = rows_of(64, 100, 5)
    folds, bias = torch.arange(64) // 16, torch.randn(5)
    found = rows_solution(in_parts(x, 30), y, weight, bias, folds, None, intercept)
    sums = []
    for fold in range(4):
        sums.append(Moments.zeros(1, 100, 5, intercept=intercept))
        sums[-1].see(x[folds == fold].double()[None], y[folds == fold].double()[None])
    expected = ridge_solution(sums, weight.double()[None], bias.double()[None], None, full)
    assert found.ridge == expected.ridge
    torch.testing.assert_close(found.weight, expected.weight[0].float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.bias, expected.bias[0], rtol=1e-3, atol=1e-3)
    assert found.before == pytest.approx(expected.before, rel=1e-4)
    assert found.after == pytest.approx(expected.after, rel=1e-3)


class Tokens(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.a, self.b = nn.Linear(6, 160), nn.Linear(160, 5, bias=bias)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def chain(first, second, norm):
    parts = [first, nn.ReLU(), second]
    return nn.Sequential(*parts, norm(second.weight.shape[0]) if norm else nn.Identity())


KINDS = {
    "conv1d": (lambda: chain(nn.Conv1d(2, 20, 3), nn.Conv1d(20, 4, 9, stride=2), None), (2, 40)),
    "conv2d": (lambda: chain(nn.Conv2d(2, 20, 1), nn.Conv2d(20, 4, 3, padding=1), None), (2, 4, 4)),
    "norm": (lambda: chain(nn.Conv2d(2, 20, 1), nn.Conv2d(20, 4, 3, bias=False), nn.BatchNorm2d), (2, 6, 6)),
    "neither": (lambda: chain(nn.Conv2d(2, 20, 1), nn.Conv2d(20, 4, 3, bias=False), None), (2, 6, 6)),
    "grouped": (lambda: chain(nn.Conv2d(2, 40, 1), nn.Conv2d(40, 4, 3, groups=2), None), (2, 6, 6)),
    "conv3d": (lambda: chain(nn.Conv3d(2, 20, 1), nn.Conv3d(20, 4, (2, 3, 2), dilation=(1, 1, 2)), None), (2, 3, 5, 5)),
    "tokens": (Tokens, (12, 6)),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_layer_is_refitted_as_with_all_memory(kind):
    """From the same rows, of which there are fewer than inputs, and of a layer of each kind."""
    build, shape = KINDS[kind]
    model = build().eval()
    data = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    last = list(model.modules())[-1] if kind == "norm" else None
    if last is not None:
        last.running_mean.normal_()
        last.running_var.uniform_(0.5, 2)
    plan, slim = cut(model, data[:1], 0.8)
    whole = sp.recover(model, slim, plan, data, [FULL])
    bounded = sp.recover(model, slim, plan, data, [FULL], memory=3e5)
    assert not [note for note in whole.notes if "by their products" in note]
    assert any("1 of 1 layers were refitted from at most" in note for note in bounded.notes)
    for (key, ours), theirs in zip(bounded.model.state_dict().items(), whole.model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-4, msg=key)
    assert error(model, bounded.model, data) < 0.5 * error(model, slim, data)
    gate = sp.verify(expanded(model, bounded.model, plan), bounded.model, plan, data[:2])
    assert gate.passed, gate.reasons()


def error(model, slim, x):
    with torch.no_grad():
        return float((slim(x) - model(x)).square().mean() / model(x).var())


@pytest.mark.parametrize("outputs", [1, 6])
def test_scales_from_rows(outputs):
    """With one output they are those of all memory; with several, from one output of each row, nearly as good."""
    model = chain(nn.Conv2d(2, 20, 1), nn.Conv2d(20, outputs, 3), None).eval()
    data = torch.randn(4, 2, 7, 7)
    plan, slim = cut(model, data[:1], 0.8)
    whole = sp.recover(model, slim, plan, data, [{**SCALES, "ridge": 0.05}]).model
    made = sp.recover(model, slim, plan, data, [{**SCALES, "ridge": 0.05}], memory=6e5)
    assert any("by their products" in note for note in made.notes)
    ratio = (made.model[2].weight / slim[2].weight).detach().flatten(2)
    torch.testing.assert_close(ratio, ratio[:1, :, :1].expand_as(ratio), rtol=1e-3, atol=1e-4)
    if outputs == 1:
        torch.testing.assert_close(made.model[2].weight, whole[2].weight, rtol=2e-3, atol=2e-4)
    assert error(model, made.model, data) < 0.9 * error(model, slim, data)


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that is made while it is on."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(x, torch.Tensor) and x.device.type == "cpu":
                self.size = max(self.size, x.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("step", [FULL, SCALES])
@pytest.mark.parametrize("memory", [2e6, 8e6])
def test_no_tensor_is_larger_than_the_bound(step, memory):
    """A window of 3,200 inputs, whose moments would take 80 MB a matrix, and rows of 30 MB."""
    model = chain(nn.Conv1d(1, 80, 9), nn.Conv1d(80, 6, 50), nn.BatchNorm1d).eval()
    data = torch.randn(20, 1, 178)
    plan, slim = cut(model, data[:1], 0.8)
    with Largest() as seen:
        done = sp.recover(model, slim, plan, data, ["means", step], memory=memory)
    assert seen.size <= memory
    assert any("by their products" in note for note in done.notes)
    assert error(model, done.model, data) < error(model, slim, data)


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to …"),
        MemoryError("Unable to allocate 34.0 GiB for an array with shape (65536, 65536)"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 32.00 GiB."),
    ],
)
def test_an_allocation_that_fails_costs_one_layer_s_refit_and_no_more(failure, monkeypatch):
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 12, 3),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 2, 1),
    ).eval()
    data = torch.randn(20, 3, 12, 12)
    plan, slim = cut(model, data[:1], 0.7)
    as_is = least_squares.Moments.see

    def see(self, x, y):
        if x.shape[2] == slim[4].weight[0].numel():
            raise failure
        as_is(self, x, y)

    monkeypatch.setattr(least_squares.Moments, "see", see)
    done = sp.recover(model, slim, plan, data, [FULL])
    assert torch.equal(done.model[4].weight, slim[4].weight)
    for index in (2, 6):
        assert not torch.equal(done.model[index].weight, slim[index].weight)
    assert [note for note in done.notes if note.startswith("4 (") and "no memory left to refit it" in note]
    assert all("\n" not in note for note in done.notes)
    assert error(model, done.model, data) < error(model, slim, data)


def test_other_errors_are_not_taken_for_it(monkeypatch):
    assert not allocation_failed(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not allocation_failed(ValueError("out of memory"))
    model = chain(nn.Conv2d(2, 8, 1), nn.Conv2d(8, 4, 3), None).eval()
    data = torch.randn(4, 2, 6, 6)
    plan, slim = cut(model, data[:1], 0.8)

    def see(self, x, y):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(least_squares.Moments, "see", see)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        sp.recover(model, slim, plan, data, [FULL])


def test_where_not_even_a_few_rows_fit_the_layer_keeps_its_weights():
    model = chain(nn.Conv2d(2, 20, 1), nn.Conv2d(20, 4, 3), None).eval()
    data = torch.randn(4, 2, 6, 6)
    plan, slim = cut(model, data[:1], 0.8)
    done = sp.recover(model, slim, plan, data, ["means", FULL], memory=1e4)
    assert torch.equal(done.model[2].weight, slim[2].weight)
    assert done.layers == [1, 0]
    assert any("2 keeps its weights: a refit of its" in note for note in done.notes)
