"""`exact` means that removing is masking with zero; what takes a statistic says so, and keeps as many as it needs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.plan.planning import realise
from structprune.suites.equality import assert_exact_is_exact, assert_slim_equals_masked
from structprune.verify import masked

IMAGES, TOKENS = torch.randn(2, 3, 8, 8), torch.randn(2, 6, 5)


class Images(nn.Module):
    """Two convolutions, 3 to 8 channels, `mix(a, b)`, and one that reads the result."""

    def __init__(self, mix, norm=None):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.mix, self.norm = mix, norm or nn.Identity()

    def forward(self, x):
        return self.head(self.norm(self.mix(self.a(x), self.b(x))))


def _gate(a, scores):
    return a * scores[:, None]


def _linear_attention(feature):
    def mix(q, k):
        q, k = feature(q).flatten(2).mT, feature(k).flatten(2).mT
        return ((q @ k.mT) @ q).mT.reshape(len(q), -1, 8, 8)

    return mix


CHANGING = {
    "einsum of sigmoid": lambda a, b: _gate(a, torch.einsum("bchw->bhw", b.sigmoid())),
    "einsum of two": lambda a, b: _gate(a, torch.einsum("bchw,bchw->bhw", b.exp(), b.cos())),
    "sum": lambda a, b: _gate(a, b.sigmoid().sum(1)),
    "elu + 1": _linear_attention(lambda x: F.elu(x) + 1),
    "a constant added": _linear_attention(lambda x: x + 0.1),
    "a constant in half of the channels": _linear_attention(
        lambda x: torch.cat([x.chunk(2, 1)[0], x.chunk(2, 1)[1] + 1], 1)
    ),
    "softplus": _linear_attention(F.softplus),
    "clamped from below": _linear_attention(lambda x: x.clamp(min=0.1)),
    "sigmoid written in place": _linear_attention(lambda x: x.clone().sigmoid_()),
    "written through a view": _linear_attention(lambda x: _add_through_a_view(x.clone())),
    "attention without softmax": lambda a, b: _gate(
        a, (a.exp().flatten(2).mT @ b.cosh().flatten(2)).sum(2).view(-1, 8, 8)
    ),
    "mul and sum of dim": lambda a, b: a * torch.linalg.vector_norm(b.cos(), dim=1, keepdim=True),
    "infinities": lambda a, b: a.abs().log() + b,
    "nothing by nothing": lambda a, b: a / a.square().sum((2, 3), keepdim=True) + b,
}
EXACT = {
    "einsum of relu": lambda a, b: _gate(a, torch.einsum("bchw->bhw", b.relu())),
    "einsum of a zero and a one": lambda a, b: _gate(a, torch.einsum("bchw,bchw->bhw", a, b.sigmoid())),
    "attention of relu": _linear_attention(lambda x: F.gelu(x) * torch.sigmoid(x)),
    "constants that cancel": _linear_attention(lambda x: F.elu(x) + 1 - torch.ones_like(x)),
    "sigmoid less a half": _linear_attention(lambda x: torch.sigmoid(x) - 0.5),
    "sigmoid between weights": lambda a, b: a.sigmoid() * b.cos() + 1,
    "clamped": _linear_attention(lambda x: x.clamp(-1, 1).square() / 2),
    "padded": _linear_attention(lambda x: F.pad(x, (1, 0, 0, 0))[..., 1:]),
    "pooled": _linear_attention(lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2)),
}


def _add_through_a_view(x):
    x[:, :, 1:].add_(1)
    return x


@pytest.mark.parametrize("name", CHANGING)
def test_contractions_of_what_is_not_zero_change_a_statistic(name):
    graph = assert_exact_is_exact(Images(CHANGING[name]), IMAGES)
    assert not all(group.exact for group in graph.groups)


@pytest.mark.parametrize("name", EXACT)
def test_contractions_of_what_is_zero_are_exact(name):
    graph = assert_exact_is_exact(Images(EXACT[name], nn.BatchNorm2d(8)), IMAGES)
    assert graph.groups
    assert all(group.exact and group.exact_in_training for group in graph.groups)


class Computed(nn.Module):
    """A linear layer between two, whose weight is computed from a parameter."""

    def __init__(self, function, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.weight, self.leave = nn.Linear(5, 8), nn.Parameter(torch.randn(6, 8)), nn.Linear(6, 2)
        self.function = function

    def forward(self, x):
        return self.leave(F.linear(torch.sigmoid(self.enter(x)), self.function(self.weight)))


@pytest.mark.parametrize(
    ("function", "exact"),
    [(torch.exp, False), (torch.sigmoid, False), (lambda w: w + 1, False), (torch.tanh, True), (lambda w: w * w, True)],
)
def test_weights_that_are_computed(function, exact):
    graph = assert_exact_is_exact(Computed(function), TOKENS)
    assert [(group.name, group.exact) for group in graph.groups] == [("enter", exact), ("weight", True)]


def test_exact_in_evaluation_only():
    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.norm, self.leave = nn.Linear(5, 8), nn.BatchNorm1d(6), nn.Linear(8, 2)

        def forward(self, x):
            return self.leave(self.norm(self.enter(x)))

    (group,) = assert_exact_is_exact(Places(), TOKENS).groups
    assert group.exact
    assert not group.exact_in_training  # the batch's statistics of each place are over the channels


STATISTICS = {
    "std": lambda x: x / (x.std(1, keepdim=True) + 1e-3),
    "var by position": lambda x: x / (torch.var(x, 1, True, True) + 1e-3),
    "std_mean": lambda x: (lambda s, m: (x - m) / (s + 1e-3))(*torch.std_mean(x, dim=1, keepdim=True)),
    "var_mean, corrected": lambda x: x - torch.var_mean(x, dim=(-3,), correction=1, keepdim=True)[0],
    "squeeze": lambda x: x.squeeze() if x.dim() > 4 else x[:1].squeeze()[None],
    "squeeze of an axis": lambda x: (x.squeeze(1) if x.shape[0] else x).sigmoid(),
    "batch statistics of places": lambda x: (
        F.batch_norm(x.permute(0, 2, 3, 1).flatten(1, 2), None, None, training=True)
        .unflatten(1, (8, 8))
        .permute(0, 3, 1, 2)
    ),
    "group_norm of one pixel": lambda x: x * F.group_norm(x.mean((2, 3), keepdim=True), 2),
}


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize("name", STATISTICS)
def test_two_channels_stay_where_one_would_not_do(name, form):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.head(STATISTICS[name](torch.sigmoid(self.a(x))))

    model, x = Net().eval(), IMAGES[:1]
    graph = sp.trace(model, x, form=form)
    (group,) = graph.groups
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 2 * group.step / group.units}, max_ratio=1.0, align=1)
    assert plan.widths == {"a": 2 * group.step}
    with torch.no_grad():
        made = sp.prune(model, plan)(x)
        assert made.isfinite().all()
        torch.testing.assert_close(made, masked(model, plan)(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(sp.errors.BudgetError):
        sp.plan(graph, sp.score(graph, "l1"), {"channels": 1 / group.units}, max_ratio=1.0, align=1)


class Grouped(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.a, self.norm, self.head = nn.Conv2d(3, 16, 3, padding=1), norm, nn.Conv2d(16, 4, 1)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.a(x))))


@pytest.mark.parametrize("form", ["module", "graph"])
def test_each_channel_a_group_of_its_own(form):
    model = Grouped(nn.GroupNorm(16, 16))
    graph = assert_exact_is_exact(model, IMAGES, form=form)
    assert [(group.name, group.units, group.exact) for group in graph.groups] == [("a", 16, True)]
    plan = realise(graph, {"a": torch.arange(5).numpy()})
    slim = sp.prune(model, plan)
    assert slim(IMAGES).shape == (2, 4, 8, 8)
    if form == "module":
        assert (slim.norm.num_groups, slim.norm.num_channels) == (5, 5)


def test_a_number_of_groups_in_the_code_keeps_the_channels():
    class Norm(nn.Module):
        def forward(self, x):
            return F.group_norm(x, 16)

    graph = sp.trace(Grouped(Norm()).eval(), IMAGES)
    assert not graph.groups
    assert [(b.op, b.channels) for b in graph.barriers] == [("group_norm", 16)]
    assert [g.units for g in assert_slim_equals_masked(Grouped(Norm()), IMAGES, form="graph").groups] == [16]


@pytest.mark.parametrize("dim", [0, 1, (0, 1), (1, 2, 3)])
def test_a_weight_that_is_normalised(dim):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 4, 1)

        def forward(self, x):
            weight = self.b.weight
            weight = weight / torch.linalg.vector_norm(weight, dim=dim, keepdim=True)
            return self.head(F.conv2d(torch.relu(self.a(x)), weight, self.b.bias).relu())

    graph = assert_slim_equals_masked(Net(), IMAGES)
    assert {group.name for group in graph.groups} == {"a", "b"}
    assert not graph.barriers


class Normed(nn.Module):
    """Normalised by buffers of its own, one of which is added to channels that a product sums over."""

    def __init__(self, names, other):
        super().__init__()
        self.names, self.other = names, other
        self.conv, self.head = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 4, 1)
        for name in {*names, other}:
            self.register_buffer(name, torch.rand(8) + 0.5)

    def forward(self, x):
        mean, variance = (getattr(self, name) for name in self.names)
        y = F.batch_norm(self.conv(x), mean, variance.to(x.dtype)) + getattr(self, self.other)[:, None, None]
        return self.head(y) + torch.einsum("bchw,bchw->bhw", y, y)[:, None]


@pytest.mark.parametrize(
    ("names", "other", "exact"),
    [
        (("middle", "power"), "power", False),
        (("middle", "power"), "middle", True),
        (("running_mean", "running_var"), "running_var", False),
        (("middle", "power"), "running_var", True),
    ],
)
def test_a_variance_is_what_the_op_normalises_by_whatever_it_is_called(names, other, exact):
    graph = sp.trace(Normed(names, other).eval(), IMAGES)
    assert [(group.name, group.exact) for group in graph.groups] == [("conv", exact)]
