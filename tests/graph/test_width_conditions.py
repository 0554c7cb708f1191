"""Code that takes another path at another width: a plan keeps to its widths, or its channels stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import structprune as sp
from structprune.errors import BudgetError, PlanError
from structprune.plan.planning import realise
from structprune.verify import masked

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
TABLE = {32: torch.sigmoid, 16: torch.tanh}


class Net(nn.Module):
    """A convolution of 32 channels, one of 24, and between them one function or another."""

    def __init__(self, first: Callable[[Net, Tensor], bool]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = first
        self.c, self.c2, self.h = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 24, 3), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x)
        x = torch.sigmoid(x) if self.first(self, x) else torch.tanh(x)
        return self.h(self.c2(x))


KEPT = {  # what decides, and the widths of `c` at which it says yes
    "multiple": (lambda net, x: x.shape[1] % 8 == 0, {8, 16, 24, 32}),
    "even": (lambda net, x: not x.shape[1] & 1, set(range(2, 33, 2))),
    "divmod": (lambda net, x: divmod(x.size(1), 4)[1] == 0, set(range(4, 33, 4))),
    "above": (lambda net, x: x.shape[1] > 20, set(range(21, 33))),
    "attribute": (lambda net, x: net.c.out_channels > 20, set(range(21, 33))),
    "weight": (lambda net, x: net.c.weight.shape[0] >= 30, {30, 31, 32}),
    "whole": (lambda net, x: bool(x.shape[1] // 16), set(range(16, 33))),
}
FREE = {
    "residual": lambda net, x: x.shape == (2 * x).shape,
    "as the next layer": lambda net, x: x.shape[1] == net.c2.in_channels,
    "places": lambda net, x: x.shape[2] % 4 == 0,
    "least": lambda net, x: x.shape[1] > 0,
}
WHOLE = {
    "one of several": lambda net, x: x.shape[1] in (32, 16),  # each comparison counts for itself
    "one width": lambda net, x: x.shape[1] == 32,
    "table": lambda net, x: TABLE.get(x.shape[1], torch.relu) is torch.sigmoid,
    "hidden": lambda net, x: int(x.shape[1]) > 20,
    "text": lambda net, x: f"{x.shape[1]}" == "32",
}


def check(net: Net, graph: sp.graph.DependencyGraph) -> set[int]:
    """Holds every plan against the masked network; the widths of `c` in these plans."""
    widths = set()
    scores = sp.score(graph, "l1")
    for share in np.linspace(0.05, 1, 16):
        try:
            plan = sp.plan(graph, scores, {"params": float(share)}, max_ratio=1.0, align=1)
        except BudgetError:
            continue
        assert torch.allclose(sp.prune(net, plan)(X), masked(net, plan)(X), atol=1e-5)
        widths.add(plan.widths["c"] if "c" in plan.groups else 32)
    return widths


@pytest.mark.parametrize("name", KEPT)
def test_a_plan_keeps_to_the_widths_of_one_path(name: str) -> None:
    first, widths = KEPT[name]
    net = Net(first).eval()
    graph = sp.trace(net, X[:1])
    assert graph.group("c").allowed == widths
    assert check(net, graph) <= widths
    assert any(
        "plans keep to the widths at which" in note and "test_width_conditions.py" in note for note in graph.notes
    )
    wrong = next(n for n in range(31, 0, -1) if n not in widths)
    with pytest.raises(
        PlanError, match=f"can't keep {wrong} of its 32 units: there the model's code takes another path"
    ):
        realise(graph, {"c": np.arange(wrong)})


@pytest.mark.parametrize("name", FREE)
def test_a_comparison_that_no_cut_changes_bars_nothing(name: str) -> None:
    net = Net(FREE[name]).eval()
    graph = sp.trace(net, X[:1])
    assert len(check(net, graph)) > 8
    assert not graph.notes
    assert not graph.barriers


@pytest.mark.parametrize("name", WHOLE)
def test_channels_stay_where_one_width_alone_goes_this_way(name: str) -> None:
    net = Net(WHOLE[name]).eval()
    graph = sp.trace(net, X[:1])
    assert [group.name for group in graph.groups] == ["c2"]
    assert any("takes another path" in barrier.reason for barrier in graph.barriers)
    check(net, graph)


def test_channels_that_are_compared_with_others_stay() -> None:
    class Two(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = self.c2(self.c(x))
            return self.h(y.sigmoid() if self.c.out_channels > y.shape[1] else y.tanh())

    graph = sp.trace(Two(lambda net, x: True).eval(), X[:1])
    assert not graph.groups
    assert any("compares their number (out_channels > shape[1])" in barrier.reason for barrier in graph.barriers)


def test_the_graph_form_is_free_to_choose_widths() -> None:
    net = Net(KEPT["multiple"][0]).eval()
    graph = sp.trace(net, X[:1], form="graph")
    plan = realise(graph, {"c": np.arange(29), "c2": np.arange(7)})
    assert torch.allclose(sp.prune(net, plan)(X), masked(net, plan)(X), atol=1e-5)
