"""Code that goes other ways at other sizes, keeps things between calls, or follows a dtype: in the graph form."""

from __future__ import annotations

import copy
import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import ModelError
from structprune.verify import masked


def _slim(model, inputs, form="graph", share=0.7):
    graph = sp.trace(model.eval(), inputs, form=form)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"params": share}, align=1)
    return sp.prune(model, plan), plan


def _assert_same(slim, reference, x, tolerance=1e-5):
    with torch.no_grad():
        made, wanted = slim(x), reference(x)
    assert made.shape == wanted.shape
    assert made.dtype == wanted.dtype
    assert torch.allclose(made.double(), wanted.double(), atol=tolerance, rtol=10 * tolerance)


class ByBatch(nn.Module):
    """Other layers for few samples, an activation for every fourth."""

    def __init__(self):
        super().__init__()
        self.stem, self.few, self.many = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 10, 1), nn.Conv2d(12, 10, 1)
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        x = self.many(x).tanh() if len(x) > 2 else self.few(x).relu()
        return self.head(x).sigmoid() if x.shape[0] % 4 == 0 else self.head(x)


@pytest.mark.parametrize("form", ["graph", "module"])
def test_paths_at_other_batches_are_taken(form, tmp_path):
    torch.manual_seed(0)
    model = ByBatch()
    slim, plan = _slim(model, torch.randn(1, 3, 6, 6), form)
    again = sp.load(sp.save(slim, plan, tmp_path / "slim"), model)
    for batch in (1, 2, 3, 4, 5, 8):
        x = torch.randn(batch, 3, 6, 6)
        _assert_same(slim, masked(model, plan), x)
        _assert_same(copy.deepcopy(slim), slim, x)
        _assert_same(again, slim, x)
    assert slim.many.weight.shape[1] == slim.few.weight.shape[1] < 12
    slim.train()(torch.randn(3, 3, 6, 6)).sum().backward()
    assert slim.many.weight.grad is not None
    assert slim.few.weight.grad is None


class OneSample(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, x):
        if x.shape[0] == 1:
            raise ValueError("one sample")
        y = self.a(x).relu()
        return self.b(y) if x.shape[1] <= 8 else self.b(y).cumsum(1)


def test_what_no_path_is_for_is_refused():
    model = OneSample()
    slim, plan = _slim(model, torch.randn(2, 5, 6))
    _assert_same(slim, masked(model, plan), torch.randn(3, 8, 6))
    with pytest.raises(ModelError, match="the dense network's code compares sizes"):
        slim(torch.randn(2, 9, 6))
    with pytest.raises(ModelError, match="the dense network's code compares sizes"):
        slim(torch.randn(1, 5, 6))


KEPT: dict[tuple[int, int], torch.Tensor] = {}


def _grid(rows, columns):
    lines = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack(lines, -1).float().view(1, rows * columns, 2)


_helped = functools.lru_cache(maxsize=8)(_grid)


class Head(nn.Module):
    """A grid for each size, kept in one of the ways in which detectors keep theirs."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.how = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 4, 1), how
        self.shape = self.grid = None
        self.kept = {}

    def forward(self, x):
        y = self.b(self.a(x).relu())
        rows, columns = y.shape[2:]
        if self.how == "shape":
            if self.shape != y.shape:
                self.shape, self.grid = y.shape, _grid(rows, columns)
            grid = self.grid
        elif self.how == "helper":
            grid = _helped(rows, columns)
        else:
            kept = KEPT if self.how == "global" else self.kept
            if (rows, columns) not in kept:
                kept[rows, columns] = _grid(rows, columns)
            grid = kept[rows, columns]
        return y.view(y.shape[0], 4, -1).transpose(1, 2) + grid.repeat(1, 1, 2)


@pytest.mark.parametrize("how", ["shape", "dict", "global", "helper"])
@pytest.mark.parametrize("ran", [True, False])
def test_what_the_code_keeps_for_a_size_is_made_anew(how, ran):
    torch.manual_seed(0)
    KEPT.clear()
    _helped.cache_clear()
    model, x = Head(how).eval(), torch.randn(1, 3, 8, 8)
    if ran:
        model(x)
    slim, plan = _slim(model, x)
    for shape in ((1, 3, 8, 8), (2, 3, 8, 8), (3, 3, 12, 7)):
        x = torch.randn(shape)
        _assert_same(slim, masked(model, plan), x)
        assert model(x).shape == slim(x).shape  # nothing without storage was left in a cache
    assert not any(grid.is_meta for grid in KEPT.values())


def _windows(x, size):
    batch, rows, columns, width = x.shape
    x = x.view(batch, rows // size, size, columns // size, size, width)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size * size, width)


class Windows(nn.Module):
    """Pads to whole windows, attends within them, masks by region, crops."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 3, padding=1), nn.Linear(12, 16), nn.Linear(16, 12)
        self.out, self.size = nn.Conv2d(12, 4, 1), 4

    def forward(self, x):
        x = self.a(x).permute(0, 2, 3, 1)
        batch, rows, columns, _ = x.shape
        size = self.size
        y = F.pad(x, (0, 0, 0, (size - columns % size) % size, 0, -rows % size))
        _, padded, across, _ = y.shape
        region = y.new_zeros((padded, across))
        for number, part in enumerate((slice(0, -size), slice(-size, -(size // 2)), slice(-(size // 2), None))):
            region[part, 0:] = number
        y = _windows(y, size)
        y = self.c(F.gelu(self.b(y - y.mean(1, keepdim=True)))) + _windows(region[None, :, :, None], size).repeat(
            batch, 1, 1
        )
        y = y.view(batch, padded // size, across // size, size, size, -1).permute(0, 1, 3, 2, 4, 5)
        y = y.reshape(batch, padded, across, -1)[:, :rows, :columns]
        return self.out(y.permute(0, 3, 1, 2))


class SamePadding(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, 2), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        rows, columns = x.size()[-2:]
        down, across = (max((math.ceil(n / 2) - 1) * 2 + 3 - n, 0) for n in (rows, columns))
        y = self.b(self.a(F.pad(x, [across // 2, across - across // 2, down // 2, down - down // 2])).relu())
        return y * (1.0 / len(x)) + y.mean((2, 3), keepdim=True) * (rows * columns) ** 0.5


@pytest.mark.parametrize("make", [Windows, SamePadding])
def test_padding_and_cropping_follow(make):
    torch.manual_seed(0)
    model = make()
    slim, plan = _slim(model, torch.randn(1, 3, 16, 16))
    for shape in ((1, 16, 16), (2, 24, 20), (3, 17, 31), (1, 15, 18)):
        _assert_same(slim, masked(model, plan), torch.randn(shape[0], 3, *shape[1:]), 1e-4)


class Typed(nn.Module):
    """Dtypes of parameters, of inputs and by name; limits of a dtype; plain tensors, some with infinities."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 4)
        self.offset, self.bars = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.0, -math.inf, 0.0, 0.0])
        self.turns = torch.polar(torch.ones(2), torch.tensor([0.3, 0.5]))

    def forward(self, x):
        y = self.b(self.a(x.to(self.a.weight.dtype)).relu())
        ramp = torch.zeros(y.shape[-1], dtype=y.dtype, device=y.device)
        ramp[1:] = 0.25
        y = y + ramp * torch.ones(4, dtype=self.b.weight.dtype) + self.offset.to(y)
        turned = torch.view_as_real(torch.view_as_complex(y.float().unflatten(-1, (2, 2))) * self.turns).flatten(-2)
        low = y.masked_fill(y < 0, torch.finfo(y.dtype).min)
        return y + turned.to(y.dtype) + (low.float() + self.bars).softmax(-1).type_as(y)


def test_dtypes_and_devices_follow_after_tracing(tmp_path):
    torch.manual_seed(0)
    model, x = Typed(), torch.randn(2, 5, 6)
    slim, plan = _slim(model, x)
    loaded = sp.load(sp.save(slim, plan, tmp_path / "slim"))
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.bfloat16, 0.02), (torch.float16, 0.005)):
        reference = masked(copy.deepcopy(model).to(dtype), plan)
        _assert_same(copy.deepcopy(slim).to(dtype), reference, x.to(dtype), tolerance)
        _assert_same(copy.deepcopy(loaded).to(dtype), reference, x.to(dtype), tolerance)
    moved = copy.deepcopy(slim).to("meta")
    assert moved(x.to("meta")).device.type == "meta"
