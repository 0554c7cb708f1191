"""Neighbours that are picked in turn, as interleaved rotary embeddings do: they go in pairs, and heads go whole."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.suites.equality import assert_slim_equals_masked

TOKENS = torch.randn(2, 6, 8)
HEADS, WIDTH = 4, 8


def _by_slices(x, cos, sin):
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
    return x * cos + turned * sin


def _by_slices_of_both(x, cos, sin):
    even, odd, c, s = x[..., 0::2], x[..., 1::2], cos[..., ::2], sin[..., ::2]
    return torch.stack([even * c - odd * s, even * s + odd * c], dim=-1).flatten(-2)


def _by_unflatten(x, cos, sin):
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-odd, even], -1).flatten(-2) * sin


def _by_reshape(x, cos, sin):
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return x * cos + torch.stack([-pairs[..., 1], pairs[..., 0]], -1).reshape(x.shape) * sin


def _by_complex_numbers(x, cos, sin):
    turn = torch.complex(cos[..., ::2].contiguous(), sin[..., ::2].contiguous())
    return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn).flatten(-2)


def _by_halves(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def _written(x, cos, sin):
    turned = torch.zeros_like(x)
    turned[..., ::2] = -x[..., 1::2]
    turned[..., 1::2] = x[..., ::2]
    return x * cos + turned * sin


TURNS = {
    "slices": _by_slices,
    "slices of both": _by_slices_of_both,
    "unflatten": _by_unflatten,
    "reshape": _by_reshape,
    "complex numbers": _by_complex_numbers,
    "halves": _by_halves,
    "written": _written,
}


class Attention(nn.Module):
    """Four heads of eight channels, turned by place; `follows` where the angles are parameters that can be cut."""

    def __init__(self, turn, follows):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Linear(8, HEADS * WIDTH) for _ in range(3))
        self.out, self.turn, self.num_heads, self.scale = nn.Linear(HEADS * WIDTH, 5), turn, HEADS, WIDTH**-0.5
        angles = torch.outer(torch.arange(6.0), 0.5 ** torch.arange(WIDTH // 2)).repeat_interleave(2, -1)
        if follows:
            self.cos, self.sin = nn.Parameter(angles.cos()), nn.Parameter(angles.sin())
        self.angles = (angles.cos(), angles.sin())

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        cos, sin = (self.cos, self.sin) if hasattr(self, "cos") else (a.to(x) for a in self.angles)
        scores = self.turn(q, cos, sin) * self.scale @ self.turn(k, cos, sin).mT
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize("name", TURNS)
def test_heads_go_where_the_angles_are_constants(name, form):
    graph = assert_slim_equals_masked(Attention(TURNS[name], follows=False), TOKENS, form=form)
    assert HEADS in [group.units for group in graph.groups]
    assert WIDTH in [group.units for group in graph.groups]  # of the values


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize("name", sorted(set(TURNS) - {"written"}))
def test_pairs_go_where_the_angles_follow(name, form):
    graph = assert_slim_equals_masked(Attention(TURNS[name], follows=True), TOKENS, form=form)
    sizes = {key: [s.index.shape for g in graph.groups for s in g.slices if s.key == key] for key in ("cos", "sin")}
    assert all(sizes.values()), graph.barriers
    group = next(g for g in graph.groups if any(s.key == "cos" for s in g.slices))
    assert group.units == WIDTH // 2


class Sliced(nn.Module):
    def __init__(self, cut, kept):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.head, self.cut = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(kept, 4, 1), cut

    def forward(self, x):
        return self.head(self.cut(torch.sigmoid(self.a(x))))


TAKEN = {
    "every second": (lambda x: x[:, ::2], 6, 6),
    "the others": (lambda x: x[:, 1::2], 6, 6),
    "every third": (lambda x: x[:, 2::3], 4, 4),
    "all, in another order": (lambda x: torch.cat([x[:, 1::2], x[:, ::2]], 1), 12, 6),
    "up to the last but one": (lambda x: x[:, :-1:2], 6, 6),
    "places": (lambda x: x[:, :, ::2, 1::2], 12, 12),
    "an uneven share": (lambda x: x[:, ::5], 3, None),
    "from the third": (lambda x: x[:, 2::2], 5, None),
}


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize("name", TAKEN)
def test_every_so_many_channels(name, form):
    cut, kept, units = TAKEN[name]
    model, x = Sliced(cut, kept).eval(), torch.randn(2, 3, 6, 6)
    if units is None:
        graph = sp.trace(model, x, form=form)
        reasons = [b.reason for b in graph.barriers if not b.reason.startswith("couples")]
        assert reasons == ["picks every so many channels"]
    else:
        graph = assert_slim_equals_masked(model, x, form=form)
        assert [group.units for group in graph.groups] == [units]


@pytest.mark.parametrize("form", ["module", "graph"])
def test_parts_of_unequal_sizes_go_apart_in_the_graph_form(form):
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.c = nn.Linear(8, 12), nn.Linear(3, 5), nn.Linear(7, 5)
            self.d, self.e = nn.Linear(2, 5), nn.Linear(5, 3)

        def forward(self, x):
            b, c, d = self.a(x).split([3, 7, 2], -1)
            return self.e((self.b(b) + self.c(c) + self.d(d)).relu())

    graph = assert_slim_equals_masked(Parts(), TOKENS, form=form)
    assert [group.units for group in graph.groups] == ([5] if form == "module" else [12, 5])
    if form == "module":
        assert "numbers in the model's code" in graph.whole_layers["a"]


def test_a_gate_of_interleaved_halves():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 24), nn.Linear(12, 3)

        def forward(self, x):
            x = self.a(x)
            return self.b(F.silu(x[..., ::2]) * x[..., 1::2])

    assert [g.units for g in assert_slim_equals_masked(Gated(), TOKENS).groups] == [12]
