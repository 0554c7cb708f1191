"""Op rules against the masked dense network: two layers, the op between them, and a layer that reads the result."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import structprune as sp
from structprune.suites.equality import assert_slim_equals_masked, random_plan

PLACES = 6
TOKENS = torch.randn(2, PLACES, 5)
IMAGES = torch.randn(2, 3, 8, 8)


class Tokens(nn.Module):
    """Two linear layers, 5 → 8, on (batch, places, channels), then `mix(a, b)`, then a linear layer."""

    def __init__(self, mix):
        super().__init__()
        self.a, self.b, self.head, self.mix = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 4), mix

    def forward(self, x):
        return self.head(self.mix(self.a(x), self.b(x)))


class Images(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.a, self.b, self.head, self.mix = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), mix

    def forward(self, x):
        return self.head(self.mix(self.a(x), self.b(x)))


def _write(places, values):
    def mix(a, b):
        a = a.clone()
        a[places(a, b)] = values(b)
        return a

    return mix


def _at(*index):
    return lambda a, b: index if len(index) > 1 else index[0]


PAIR = torch.tensor([0, 2])

COUPLED = {  # channels of a and b go together
    "clip": lambda a, b: a.clip(-1, 1) + b.square(),
    "special": lambda a, b: torch.special.erfc(a) + torch.logit(b.sigmoid()) + a.exp2() + b.cosh() + a.atan(),
    "binary": lambda a, b: torch.hypot(a, b) + torch.xlogy(b.exp(), a.exp()) + torch.logaddexp(a, b),
    "median": lambda a, b: a - b.median(1, keepdim=True)[0],
    "mode": lambda a, b: a - torch.mode(b, 1, keepdim=True)[0],
    "kthvalue": lambda a, b: a - b.kthvalue(2, 1, keepdim=True)[0],
    "aminmax": lambda a, b: a - b.aminmax(dim=1, keepdim=True)[1],
    "cummax": lambda a, b: a.cummax(1)[0] + b.logcumsumexp(1) + b.cummin(1)[0],
    "expand_as": lambda a, b: a + b.mean(1, keepdim=True).expand_as(a),
    "gather": lambda a, b: a.gather(1, b.argsort(1)),
    "gather of few places": lambda a, b: a.gather(1, b.topk(2, 1)[1]),
    "scatter": lambda a, b: a.scatter(1, b.topk(1, 1)[1], 0.0),
    "scatter_add": lambda a, b: torch.zeros_like(a).scatter_add(1, a.argsort(1), b),
    "scatter_reduce": lambda a, b: a.scatter_reduce(1, b.argsort(1), b, reduce="amax"),
    "index_add": lambda a, b: a.index_add(1, PAIR, b[:, :2]),
    "index_copy": lambda a, b: a.index_copy(1, PAIR, b[:, :2]),
    "index_fill": lambda a, b: a.index_fill(1, PAIR, 0.5) * b,
    "index_put": _write(_at(slice(None), PAIR), lambda b: b[:, :2]),
    "index_put of a row": _write(_at(slice(None), PAIR), lambda b: b[0, 0]),
    "index_put by a mask of channels": _write(lambda a, b: b > 0, lambda b: 7.0),
    "cosine_similarity of places": lambda a, b: a * F.cosine_similarity(a, b, dim=1)[:, None],
    "hstack": lambda a, b: torch.hstack([a, b])[:, ::2],
    "rfft": lambda a, b: torch.fft.irfft(torch.fft.rfft(a, dim=1) * 2, n=PLACES, dim=1) + b,
    "vstack": lambda a, b: torch.vstack([a, b]).unflatten(0, (2, -1)).sum(0),
}
APART = {  # what follows from a (or b) alone, or is a statistic over its channels
    "type_as": lambda a, b: a.type_as(b.mean(1)) + torch.full_like(a, 0.3),
    "nanmean": lambda a, b: a - b.nanmean(-1, keepdim=True),
    "linalg_norm": lambda a, b: a / torch.linalg.norm(b, 1, -1, keepdim=True),
    "normalize": lambda a, b: F.normalize(a, dim=-1) * b.mean(-1, keepdim=True),
    "expand_as of a mean": lambda a, b: a * b.mean(2, keepdim=True).expand_as(a),
    "cosine_similarity": lambda a, b: a * F.cosine_similarity(a, b, dim=-1)[..., None],
    "index_put by a mask of places": _write(lambda a, b: torch.arange(2 * PLACES).view(2, PLACES) < 3, lambda b: 0.0),
    "vdot": lambda a, b: a * torch.vdot(torch.ones(3).to(a), torch.ones(3).to(a)),
    "baddbmm": lambda a, b: torch.baddbmm(a.new_zeros(PLACES, PLACES), a, b.transpose(1, 2)).sigmoid() @ a,
}
KEPT = {  # the op reads or writes some of the channels of b
    "kthvalue": (lambda a, b: a * b.kthvalue(2, keepdim=True)[0], "picks among the channels themselves"),
    "median": (lambda a, b: a * b.median(), "picks among the channels themselves"),
    "aminmax": (lambda a, b: a * b.aminmax(dim=2, keepdim=True)[0], "picks among the channels themselves"),
    "cummax": (lambda a, b: a * b.cummax(2)[0].mean(2, keepdim=True), "order of the channels"),
    "gather": (lambda a, b: a * b.gather(2, torch.zeros(2, PLACES, 1, dtype=torch.long)), "by their numbers"),
    "index_fill": (lambda a, b: a * b.index_fill(2, PAIR, 0.5).mean(2, keepdim=True), "by their numbers"),
}


@pytest.mark.parametrize("name", COUPLED)
def test_channels_that_are_coupled(name):
    graph = assert_slim_equals_masked(Tokens(COUPLED[name]), TOKENS)
    assert [(group.name, group.units, group.exact) for group in graph.groups] == [("a", 8, True)]
    assert {s.key for s in graph.groups[0].slices if s.role == "filter"} == {"a.weight", "b.weight"}
    assert not graph.barriers


@pytest.mark.parametrize("name", APART)
def test_channels_apart(name):
    graph = assert_slim_equals_masked(Tokens(APART[name]), TOKENS)
    assert "a" in [group.name for group in graph.groups]
    assert not graph.barriers


@pytest.mark.parametrize("name", KEPT)
def test_channels_that_are_numbered_stay(name):
    mix, reason = KEPT[name]
    graph = assert_slim_equals_masked(Tokens(mix), TOKENS)
    assert [group.name for group in graph.groups] == ["a"]
    assert any(reason in barrier.reason and barrier.channels == 8 for barrier in graph.barriers), graph.barriers


def test_unpooling():
    def mix(a, b):
        pooled, places = F.max_pool2d(a, 2, return_indices=True)
        return F.max_unpool2d(pooled * 2, places, 2) + b

    assert [group.units for group in assert_slim_equals_masked(Images(mix), IMAGES).groups] == [8]


def test_sampling_by_a_grid():
    grid = F.affine_grid(torch.eye(2, 3)[None] * 0.7, [1, 3, 8, 8], align_corners=False)
    model = Images(lambda a, b: F.grid_sample(a, grid.expand(len(a), -1, -1, -1).to(a), align_corners=False) + b)
    assert [group.units for group in assert_slim_equals_masked(model, IMAGES).groups] == [8]


def test_resampling_by_the_exactly_nearest_pixel():
    model = Images(lambda a, b: F.interpolate(F.avg_pool2d(a, 2), scale_factor=2, mode="nearest-exact") + b)
    assert [group.units for group in assert_slim_equals_masked(model, IMAGES).groups] == [8]


def test_fourier_transforms():
    graph = assert_slim_equals_masked(Tokens(lambda a, b: torch.fft.fft(a, dim=1).real + b), TOKENS)
    assert [group.name for group in graph.groups] == ["a"]  # b goes with it
    graph = sp.trace(Tokens(lambda a, b: torch.fft.fft(a + b, dim=2).real), TOKENS)
    assert not graph.groups
    assert "transforms along an axis that carries channels" in graph.barriers[0].reason


def test_a_filter_in_the_frequencies():
    class Frequencies(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
            self.weight = nn.Parameter(torch.randn(8, 8, 5, 2))

        def forward(self, x):
            x = self.a(x)
            filtered = torch.fft.rfft2(x) * torch.view_as_complex(self.weight)
            return self.head(torch.fft.irfft2(filtered, s=x.shape[-2:]))

    (group,) = assert_slim_equals_masked(Frequencies(), IMAGES).groups
    assert ("weight", 0) in [(s.key, s.dim) for s in group.slices]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_token_that_is_spread_over_the_batch_ties_its_channels(batch):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head, self.token = nn.Linear(5, 8), nn.Linear(8, 2), nn.Parameter(torch.randn(1, 1, 8))

        def forward(self, x):
            return self.head(torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1))

    (group,) = assert_slim_equals_masked(Net(), TOKENS[:batch]).groups
    assert ("token", 2) in [(s.key, s.dim) for s in group.slices]


def test_an_embedding_s_width_follows():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix, self.head = nn.Embedding(10, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            x = self.embed(x)
            return self.head(x + self.mix(x))

    model = Net()
    graph = assert_slim_equals_masked(model, torch.randint(0, 10, (2, PLACES)))
    plan = random_plan(graph, 0)
    slim = sp.prune(model, plan)
    assert slim.embed.embedding_dim == slim.embed.weight.shape[1] == len(plan.groups["mix"]["kept"]) < 8


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim):
    model = nn.Sequential(
        nn.Conv1d(3, 8, 3), nn.ELU(), parametrizations.weight_norm(nn.Conv1d(8, 12, 3), dim=dim), nn.Conv1d(12, 2, 1)
    )
    graph = assert_slim_equals_masked(model, torch.randn(2, 3, 9))
    assert [(group.units, group.exact) for group in graph.groups] == [(8, False), (12, False)]  # norms of what is left
    assert not graph.barriers


def test_weight_norm_of_transposed_convolutions():
    model = nn.Sequential(
        nn.Conv1d(3, 8, 3), parametrizations.weight_norm(nn.ConvTranspose1d(8, 6, 4, 2)), nn.Conv1d(6, 1, 3)
    )
    assert [group.units for group in assert_slim_equals_masked(model, torch.randn(2, 3, 9)).groups] == [8, 6]


def test_spectral_norm():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), parametrizations.spectral_norm(nn.Conv2d(8, 12, 3)), nn.Conv2d(12, 2, 1))
    graph = assert_slim_equals_masked(model, IMAGES)
    assert [(group.units, group.exact) for group in graph.groups] == [(8, True), (12, True)]
    assert not graph.barriers
