"""Code that goes another way at other sizes, divides by them, keeps frozen configurations, or asks for values there."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import structprune as sp
from structprune.suites.equality import assert_slim_equals_masked
from structprune.verify import masked

IMAGE = torch.randn(2, 3, 8, 8)


class Net(nn.Module):
    """Two convolutions with a function of the first's output and the input between them."""

    def __init__(self, between: object) -> None:
        super().__init__()
        self.a, self.b, self.between = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), between

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(self.a(x).relu(), x))  # type: ignore[operator]


def _asks_at_other_batches(y: Tensor, x: Tensor) -> Tensor:
    if x.shape[0] > 2 and float(x.max()) > 1e9:
        return y * 2
    return y


def _asks_at_other_sizes(y: Tensor, x: Tensor) -> Tensor:
    if x.shape[-1] > 8 and float(x.max()) > 1e9:
        return y * 2
    return y


def _asks_at_other_widths(y: Tensor, x: Tensor) -> Tensor:
    if y.shape[1] != 8 and bool(torch.isnan(y).any()):
        return y * 2
    return y


def _divides_by_batches(y: Tensor, x: Tensor) -> Tensor:
    return y * 2 if 12 % (x.shape[0] - 1) == 5 else y


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize(
    "between", [_asks_at_other_batches, _asks_at_other_sizes, _asks_at_other_widths, _divides_by_batches]
)
def test_questions_that_only_other_sizes_raise_do_not_stop_a_trace(between: object, form: str) -> None:
    graph = sp.trace(Net(between).eval(), IMAGE, form=form)
    if graph.groups:
        plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.6}, align=1)
        with torch.no_grad():
            torch.testing.assert_close(sp.prune(graph.model, plan)(IMAGE), masked(graph.model, plan)(IMAGE))
    else:
        assert graph.barriers


def test_a_width_that_stands_inside_a_quotient_stays_or_follows() -> None:
    class Quotient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n, self.a, self.b = 4, nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y.reshape(len(y), 16 // (self.n // 2), -1).flatten(1))

    model, x = Quotient().eval(), torch.randn(2, 6)
    if sp.trace(model, x).groups:
        assert_slim_equals_masked(model, x)
    else:
        assert sp.trace(model, x).barriers


class _Frozen:
    """A configuration that refuses changes with an error of its own."""

    def __init__(self) -> None:
        object.__setattr__(self, "hidden", 8)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("frozen")


def test_a_configuration_may_be_frozen_by_any_library() -> None:
    class Configured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.a, self.b = _Frozen(), nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu())

    assert_slim_equals_masked(Configured(), torch.randn(2, 6))


def test_attention_over_places_takes_its_scale_from_the_size_that_it_runs_at() -> None:
    def over_places(y: Tensor, x: Tensor) -> Tensor:
        q = y.flatten(2).unflatten(1, (2, 4))
        return y + F.scaled_dot_product_attention(3 * q, q, q).flatten(1, 2).view_as(y)

    model = Net(over_places).eval()
    graph = sp.trace(model, IMAGE, form="graph")
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 1.0}, align=1)
    slim = sp.prune(model, plan)
    for size in (8, 9, 12):
        x = torch.randn(1, 3, size, size)
        with torch.no_grad():
            torch.testing.assert_close(slim(x), model(x))


@pytest.mark.thorough
@pytest.mark.parametrize("width", [1000, 1500, 2047])
def test_a_single_width_at_which_code_branches_is_not_planned(width: int) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2048), nn.Linear(2048, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y * 2 if y.shape[1] == width else y)

    graph = sp.trace(Wide().eval(), torch.randn(1, 2))
    share = (width * 5 + 2) / (2048 * 5 + 2)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"params": math.nextafter(share, 1)}, align=1)
    assert plan.widths["a"] != width


@pytest.mark.parametrize("form", ["module", "graph"])
def test_a_cut_that_starts_where_a_width_says_is_not_moved(form: str) -> None:
    class Offset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            start = y.shape[1]
            return self.b(y) * torch.arange(40.0)[start : start + 4][:, None, None]

    model = Offset().eval()
    graph = sp.trace(model, IMAGE, form=form)
    if graph.groups:
        assert_slim_equals_masked(model, IMAGE, form=form)
    else:
        assert "works out from a width" in graph.barriers[0].reason


MASK: Tensor | None = None


@pytest.mark.parametrize("form", ["module", "graph"])
def test_a_global_that_forward_sets_is_left_as_it_was(form: str) -> None:
    class Lazy(nn.Module):
        scale: Tensor | None = None

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            global MASK
            if MASK is None:
                MASK = torch.ones(8, 8, device=x.device)
            if Lazy.scale is None:
                Lazy.scale = torch.full((1,), 2.0, device=x.device)
            return self.b(self.a(x) * MASK * Lazy.scale)

    model = Lazy().eval()
    graph = sp.trace(model, IMAGE, form=form)
    assert (MASK, Lazy.scale) == (None, None)
    assert [group.units for group in graph.groups] == [8]
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.6}, align=1)
    assert sp.verify(model, sp.prune(model, plan), plan, IMAGE).passed
    globals()["MASK"] = None
