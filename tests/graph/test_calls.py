"""Every op with every way to name its axes, channels on each of them: pruned as the masked network says, or kept."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import ModelError
from structprune.graph.barriers import UNKNOWN
from structprune.plan.planning import realise
from structprune.suites.equality import zeroed
from structprune.verify import masked
from tests.graph.calls import CALLS, RANK, SHAPE

INPUT = torch.randn(SHAPE[1], SHAPE[2], SHAPE[3], 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Called(nn.Module):
    """Six channels on axis `place` of four, a call, and weights of its own for each position of what it makes."""

    def __init__(self, call, place):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.call, self.place = nn.Linear(3, SHAPE[0]).double(), call, place
        with torch.no_grad():
            made = self._made(INPUT)
        self.weights = nn.ParameterList([torch.rand_like(t) + 0.5 for t in made])

    def _made(self, x):
        x = self.call(torch.sigmoid(self.enter(x)).movedim(-1, self.place))
        return [t.detach()[None] if t.dim() < 2 else t for t in ([x] if isinstance(x, torch.Tensor) else x)]

    def forward(self, x):
        letters = "abcdefgh"
        return torch.stack([
            torch.einsum(f"{letters[: t.dim()]},{letters[: t.dim()]}->", t, w)
            for t, w in zip(self._made(x), self.weights, strict=True)
        ])  # fmt: skip


def check(name, place, form):
    model = Called(CALLS[name], place).eval()
    graph = sp.trace(model, INPUT, form=form)
    assert UNKNOWN not in graph.reasons.values()
    if not graph.groups:
        assert graph.barriers, "the channels stay without a reason"
        return False
    for kept in ({g.name: g.narrowed(2) for g in graph.groups}, {g.name: _fewest(g) for g in graph.groups}):
        try:
            plan = realise(graph, kept)
        except ModelError:  # a part of the batch, in the graph form
            return False
        slim = sp.prune(model, plan)
        with torch.no_grad():
            want, made = masked(model, plan)(INPUT), slim(INPUT)
            torch.testing.assert_close(made, want, rtol=1e-9, atol=1e-9)
            if all(group.exact for group in graph.groups):
                torch.testing.assert_close(made, zeroed(model, plan.keep)(INPUT), rtol=1e-9, atol=1e-9)
    return True


def _fewest(group):
    kept = group.must_stay(np.arange(group.units, dtype=float))
    while not (len(np.unique(group.strata[kept])) == group.step and len(set(np.bincount(group.strata[kept]))) == 1):
        counts = [int(kept[group.strata == s].sum()) for s in range(group.step)]
        stratum = int(np.argmin(counts))
        kept[np.flatnonzero((group.strata == stratum) & ~kept)[0]] = True
    return np.flatnonzero(kept)


EVERY = [(name, place, form) for name in CALLS for place in range(RANK) for form in ("module", "graph")]


@pytest.mark.parametrize(("name", "place", "form"), random.Random(0).sample(EVERY, 160))
def test_a_call(name, place, form):
    check(name, place, form)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_every_call(name):
    pruned = [check(name, place, form) for place in range(RANK) for form in ("module", "graph")]
    assert any(pruned) or name.split(" [")[0] in NEVER_PRUNED


NEVER_PRUNED = ("roll by no axis", "cumsum of all", "outer", "kron", "meshgrid")  # all axes are mixed
