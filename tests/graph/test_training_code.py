"""Code that runs only in training: its parameters are cut with the rest, or they are barriers."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import structprune as sp
from structprune.verify import masked

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two convolutions and a head; in training it does what `way` says beside."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.wide = way, False
        self.c, self.c2, self.h = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 5, 1)
        self.aux, self.aux2 = nn.Conv2d(16, 8, 1), nn.Linear(8 * 4, 3)
        self.norm = nn.BatchNorm2d(16)
        self.register_buffer("ema", torch.zeros(16))

    def train(self, mode: bool = True) -> Net:
        self.wide = mode
        return super().train(mode)

    def forward(self, x: Tensor, target: Tensor | None = None) -> Any:
        y = self.c2(self.c(x).relu()).relu()
        return getattr(self, self.way)(y, target) if self.trains() else self.h(y - self.ema[:, None, None])

    def trains(self) -> bool:
        if self.way == "by_its_own_flag":
            return self.wide
        return torch.is_grad_enabled() if self.way == "with_gradients" else self.training

    def auxiliary_head(self, y: Tensor, _: Any) -> Any:
        return self.h(y), self.aux2(F.adaptive_avg_pool2d(self.aux(y).relu(), 2).flatten(1))

    by_its_own_flag = with_gradients = auxiliary_head

    def norm_of_pooled(self, y: Tensor, _: Any) -> Any:
        """Which can't train on one sample."""
        return self.h(y), self.aux(self.norm(F.adaptive_avg_pool2d(y, 1)))

    def average_in_place(self, y: Tensor, _: Any) -> Any:
        self.ema.mul_(0.9).add_(y.detach().mean((0, 2, 3)), alpha=0.1)
        return self.h(y - self.ema[:, None, None])

    def average_anew(self, y: Tensor, _: Any) -> Any:
        self.ema = 0.9 * self.ema + 0.1 * y.detach().mean((0, 2, 3))
        return self.h(y - self.ema.view(1, -1, 1, 1))

    def depth(self, y: Tensor, _: Any) -> Any:
        return self.h(y * torch.empty(len(y), 1, 1, 1).bernoulli_(0.5) if random.random() < 0.9 else y)

    def by_value(self, y: Tensor, _: Any) -> Any:
        return (self.h(y), self.aux(y)) if y.mean() > 0 else self.h(y)

    def fixed_part(self, y: Tensor, _: Any) -> Any:
        return self.h(y), self.aux(F.pad(y[:, :8], (0, 0, 0, 0, 4, 4)))

    def needs_target(self, y: Tensor, target: Tensor | None) -> Any:
        if target is None:
            raise ValueError("in training, give a target")
        return F.mse_loss(self.aux(y), target)


def flat(out: Any) -> list[Tensor]:
    return list(out) if isinstance(out, tuple) else [out]


CUT = ["auxiliary_head", "by_its_own_flag", "with_gradients", "norm_of_pooled", "average_in_place", "average_anew"]


@pytest.mark.parametrize("way", [*CUT, "depth", "by_value", "fixed_part"])
def test_the_slim_module_trains_as_the_masked_one(way: str) -> None:
    net = Net(way).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    graph = sp.trace(net, X[:1])
    assert not net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"params": 0.7}, align=1)
    slim, reference = sp.prune(net, plan), masked(net, plan)
    for model in (slim, reference):
        model.train()
    steps: list[list[Tensor]] = []
    for model in (slim, reference):
        random.seed(0)
        torch.manual_seed(0)
        steps.append([*flat(model(X)), *flat(model(X))])
    for a, b in zip(*steps, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    kept = plan.keep["c2.weight"].get("0")
    if way in CUT[:4]:
        assert plan.keep["aux.weight"]["1"] == kept
    if way.startswith("average"):
        assert torch.allclose(slim.ema, reference.ema[kept], atol=1e-6)
    if way == "fixed_part":
        assert any("its channels can't go" in barrier.reason for barrier in graph.barriers)
    assert graph.macs() == sp.trace(Net("depth").eval(), X[:1]).macs()


def test_training_code_that_cannot_be_traced_keeps_what_it_may_use() -> None:
    graph = sp.trace(Net("needs_target").eval(), X[:1])
    assert any("give a target" in note for note in graph.notes)
    assert not [s for group in graph.groups for s in group.slices if s.key.startswith(("aux", "c2", "norm"))]
    assert any("could not be traced" in barrier.reason for barrier in graph.barriers)


def test_the_graph_form_says_that_training_code_is_left_out() -> None:
    net = Net("auxiliary_head").eval()
    graph = sp.trace(net, X[:1], form="graph")
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"params": 0.7}, align=1)
    assert any("only training uses" in note and "aux.weight" in note for note in plan.notes)
    assert sp.verify(net, sp.prune(net, plan), plan, X).passed
    plain = sp.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(), nn.Conv2d(8, 2, 1)).eval(), X, form="graph")
    assert not plain.notes


@pytest.mark.parametrize("form", ["module", "graph"])
def test_a_norm_that_is_called_twice_counts_twice(form: str) -> None:
    """Its counting in training mode is no code of the model's own."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            made = self.norm(self.a(x)) + self.norm(self.a(x.flip(2)))
            return self.b(made.relu() * 2 if self.training else made.relu())

    graph = sp.trace(Net().eval(), torch.randn(2, 3, 8, 8), form=form)
    assert {group.name: group.units for group in graph.groups} == {"a": 8}
