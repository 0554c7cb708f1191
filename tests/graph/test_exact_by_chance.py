"""Random chains of functions before a contraction of their own channels: what is called exact is exact."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from structprune.suites.equality import assert_exact_is_exact

IMAGES = torch.randn(2, 3, 4, 4)


def _in_place(function):
    def copied(x, _):
        x = x.clone()
        function(x)
        return x

    return copied


def _written(value):
    def write(x, b):
        x = x.clone()
        x[:, :, 1:3] = value(b[:, :, 1:3])
        return x

    return write


def _through_a_view(x, _):
    x = x.clone()
    x.flatten(2).mul_(2).add_(0.5)
    return x


FUNCTIONS = {
    "sigmoid": lambda x, _: x.sigmoid(),
    "relu": lambda x, _: x.relu(),
    "gelu": lambda x, _: F.gelu(x),
    "hardswish": lambda x, _: F.hardswish(x),
    "elu + 1": lambda x, _: F.elu(x) + 1,
    "elu": lambda x, _: F.elu(x),
    "cos": lambda x, _: x.cos(),
    "a number more": lambda x, _: x + 0.3,
    "a half less": lambda x, _: x - 0.5,
    "times a number": lambda x, _: x * -1.7,
    "times b": lambda x, b: x * b,
    "times a gate": lambda x, b: x * b.sigmoid(),
    "plus b": lambda x, b: x + b,
    "over b": lambda x, b: x / (b.abs() + 1),
    "over a mean": lambda x, _: x / (x.abs().mean((2, 3), keepdim=True) + 1),
    "beside a gate": lambda x, b: torch.cat([x, b.sigmoid()], 1).chunk(2, 1)[0],
    "padded with zeros": lambda x, _: F.pad(x, (1, 0))[..., :-1],
    "padded": lambda x, _: F.pad(x, (1, 0), value=0.7)[..., :-1],
    "softmax of places": lambda x, _: x.flatten(2).softmax(-1).view_as(x),
    "cumsum of places": lambda x, _: x.cumsum(2) * 0.2,
    "maximum": lambda x, b: torch.maximum(x, b),
    "maximum with a number": lambda x, _: torch.maximum(x, x.new_full((), 0.1)),
    "where": lambda x, b: torch.where(x > 0, x, b),
    "where one": lambda x, _: torch.where(x >= 0, x, torch.ones_like(x)),
    "filled where low": lambda x, _: x.masked_fill(x <= 0, 0.4),
    "cleared by b": lambda x, b: x.masked_fill(b < 0, 0.0),
    "clamped above zero": lambda x, _: x.clamp(0.1, 3),
    "clamped": lambda x, _: x.clamp(-1, 3),
    "added in place": _in_place(lambda x: x.add_(0.2)),
    "sigmoid in place": _in_place(lambda x: x.sigmoid_()),
    "written": _written(torch.sigmoid),
    "written with zeros": _written(torch.tanh),
    "through a view": _through_a_view,
    "pooled": lambda x, _: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2),
    "less its mean": lambda x, _: x - x.mean((2, 3), keepdim=True),
    "logsumexp": lambda x, _: x.logsumexp((2, 3), keepdim=True) + 0 * x,
    "to the power of zero": lambda x, _: x.abs().pow(0.0),
    "square": lambda x, _: x.pow(2) * 0.3,
    "log": lambda x, _: (x.abs() + 1).log(),
    "instance norm": lambda x, _: F.instance_norm(x),
    "layer norm of places": lambda x, _: F.layer_norm(x, x.shape[-1:]),
    "full": lambda x, _: x * torch.full_like(x, 2) - torch.full_like(x, 0.5),
    "is zero": lambda x, _: (x == 0).to(x.dtype),
    "lerp": lambda x, b: torch.lerp(x, b, 0.3),
    "matmul with a gate": lambda x, b: x @ b.sigmoid(),
    "stack": lambda x, b: torch.stack([x, b.cos()], 2).sum(2),
    "glu": lambda x, b: F.glu(torch.cat([x, b], 2), 2),
    "unfold": lambda x, _: x.unfold(2, 2, 1).mean(-1)[:, :, :1] + x,
}
CONTRACTIONS = (
    lambda x: torch.einsum("bchw->bhw", x),
    lambda x: torch.einsum("bchw,bchw->bhw", x, x.cos()),
    lambda x: (x.flatten(2).mT @ x.flatten(2)).mean(-1).view(len(x), *x.shape[2:]),
    lambda x: torch.bmm(x.flatten(2).transpose(1, 2), x.flatten(2)).sum(-1).view(len(x), *x.shape[2:]),
)


class Chain(nn.Module):
    def __init__(self, seed):
        super().__init__()
        rng = random.Random(seed)
        torch.manual_seed(seed)
        self.names = [rng.choice(list(FUNCTIONS)) for _ in range(rng.randint(1, 4))]
        self.contract = rng.choice(CONTRACTIONS)
        self.a, self.b, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)
        self.norm = nn.BatchNorm2d(6) if rng.random() < 0.5 else nn.Identity()
        if isinstance(self.norm, nn.BatchNorm2d):
            nn.init.normal_(self.norm.bias)
            nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        a, b = self.norm(self.a(x)), self.b(x)
        y = a
        for name in self.names:
            y = FUNCTIONS[name](y, b)
        return self.head(a * self.contract(y)[:, None] * 0.1)


@pytest.mark.parametrize("seed", range(10))
def test_a_chain(seed):
    assert_exact_is_exact(Chain(seed), IMAGES, form=("module", "graph")[seed % 2])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 510))
def test_many_chains(seed):
    assert_exact_is_exact(Chain(seed), IMAGES, form=("module", "graph")[seed % 2])
