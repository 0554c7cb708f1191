"""The graph form at other batches, image sizes and lengths: as the masked dense one, or an error that names them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import ModelError
from structprune.report import count_macs
from structprune.verify import masked


def _slim(model, inputs, share=0.7):
    graph = sp.trace(model.eval(), inputs, form="graph")
    plan = sp.plan(graph, sp.score(graph, "l1"), {"params": share}, align=1)
    return sp.prune(model, plan), masked(model, plan)


def _assert_same(slim, reference, *inputs):
    with torch.no_grad():
        made, wanted = slim(*inputs), reference(*inputs)
    assert made.shape == wanted.shape
    assert torch.allclose(made, wanted, atol=1e-5, rtol=1e-4)


def _images(*shapes):
    return [(torch.randn(b, 3, h, w),) for b, h, w in shapes]


def _tokens(channels, *shapes):
    return [(torch.randn(b, n, channels),) for b, n in shapes]


IMAGES = _images((1, 16, 16), (2, 24, 24), (3, 17, 31), (1, 15, 18))


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 12, 3, 2, 1)
        self.c = nn.Conv2d(24, 4, 1)

    def forward(self, x):
        a = self.a(x).relu()
        b = F.interpolate(self.b(a).relu(), size=a.shape[2:], mode="bilinear", align_corners=False)
        return F.interpolate(self.c(torch.cat([a, b], 1)), size=(x.size(2), x.size(3)), mode="nearest")


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 6, 1), nn.Conv2d(30, 4, 1)

    def forward(self, x):
        x = self.a(x).relu()
        parts = [F.interpolate(self.b(F.adaptive_avg_pool2d(x, n)), x.size()[2:]) for n in (1, 2, 3)]
        pooled = F.avg_pool2d(x, x.shape[2:])
        return self.c(torch.cat([x * pooled, *parts], 1))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(12, 8, 2, 2), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        a = self.a(x).relu()
        up = self.up(self.b(F.max_pool2d(a, 2)).relu())
        rows, columns = a.size(2) - up.size(2), a.size(3) - up.size(3)
        up = F.pad(up, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.out(torch.cat([a, up], 1))


class Coordinates(nn.Module):
    """Grids, masks written part by part, numbers and ones made in forward."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(14, 4, 1)

    def forward(self, x):
        y = self.a(x).relu()
        h, w = y.shape[2:]
        lines = [torch.linspace(-1, 1, n, device=x.device) for n in (h, w)]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij")).expand(y.shape[0], -1, -1, -1)
        mask = torch.zeros((1, h, w, 1), device=x.device)
        for number, rows in enumerate((slice(0, -4), slice(-4, -2), slice(-2, None))):
            mask[:, rows] = number
        scale = torch.sqrt(torch.tensor(4.0)) + torch.full((h, 1), 2.0) + torch.arange(w)
        return self.b(torch.cat([y, grid.to(y)], 1)) / scale + mask.permute(0, 3, 1, 2)


class Encoder(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 3, 24, batch_first=batch_first)
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.b(self.encoder(self.a(x)))


class RelativePositions(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 36), nn.Linear(12, 8)
        self.table = nn.Parameter(torch.randn(63, 3))

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        place = torch.arange(length, device=x.device)
        bias = self.table[(place[:, None] - place + 31).view(-1)].view(length, length, -1).permute(2, 0, 1)
        mask = torch.tril(torch.ones(length, length, device=x.device)).view(1, 1, length, length)
        scores = (q @ k.transpose(-2, -1) * 0.5 + bias).masked_fill(mask == 0, float("-inf"))
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).contiguous().view(batch, length, 12))


class SquareOfTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x):
        side = int(math.sqrt(x.shape[1]))
        y = self.a(x).transpose(1, 2).reshape(x.shape[0], -1, side, side)
        return self.b(F.avg_pool2d(y, 3, 1, 1).flatten(2).transpose(1, 2))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        y = self.a(x).relu()
        y = F.layer_norm(y, y.shape[1:])
        batch, channels, *places = y.shape
        kernel = torch.full((batch * channels, 1, 3, 3), 0.2)
        z = F.conv2d(y.reshape(1, -1, *places), kernel, padding=1, groups=batch * channels)
        return self.b(z.view(batch, channels, *places))


class ByBatch(nn.Module):
    """Channels among the samples, products and powers of the batch, arguments that are examples."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 1)
        self.c, self.d = nn.Conv2d(12, 4, 1), nn.Linear(4, 4)

    def forward(self, x):
        a = self.a(x).relu()
        batch, channels, *places = a.shape
        y = F.avg_pool2d(a.reshape(batch * channels, 1, *places), 3, 1, 1).view_as(a)
        y = self.c(self.b(y).flatten(2).sigmoid().view_as(a) + a.mean(1, keepdim=True).expand_as(a))
        pooled = self.d(y.mean((2, 3)))
        return (pooled @ pooled.t()).reshape(x.shape[0] ** 2) + torch.arange(x.shape[0]).sum() / x.shape[0]


SQUARES = _tokens(8, (1, 16), (2, 25), (1, 64))
NETWORKS = {
    "segmenter": (Segmenter, IMAGES),
    "pyramid": (Pyramid, IMAGES),
    "unet": (UNet, IMAGES),
    "normed": (Normed, IMAGES),
    "coordinates": (Coordinates, IMAGES),
    "encoder": (lambda: Encoder(True), _tokens(6, (1, 10), (2, 7), (5, 13), (1, 1))),
    "encoder, length first": (lambda: Encoder(False), _tokens(6, (10, 1), (7, 2), (13, 5))),
    "relative positions": (RelativePositions, _tokens(8, (1, 10), (2, 7), (1, 31))),
    "square": (SquareOfTokens, SQUARES),
    "by batch": (ByBatch, _images((1, 6, 6), (2, 6, 6), (5, 7, 9))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_other_sizes_are_followed(name):
    torch.manual_seed(0)
    make, (traced, *others) = NETWORKS[name]
    model = make()
    slim, reference = _slim(model, traced)
    for inputs in (traced, *others):
        _assert_same(slim, reference, *inputs)


class TwoInputs(nn.Module):
    """Ids and their mask, of one length."""

    def __init__(self):
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(20, 12), nn.Linear(12, 16), nn.Linear(16, 5)

    def forward(self, ids, mask):
        return self.b(self.a(self.embed(ids)).relu() * mask[..., None])


def test_axes_of_several_inputs_change_together():
    torch.manual_seed(0)
    slim, reference = _slim(TwoInputs(), (torch.zeros(1, 6, dtype=torch.long), torch.ones(1, 6)))
    _assert_same(slim, reference, torch.randint(0, 20, (3, 9)), torch.rand(3, 9))


class Unrolled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        state = self.a(x[:, 0]).tanh()
        for step in range(1, x.shape[1]):
            state = torch.tanh(self.a(x[:, step]) + self.b(state))
        return self.c(state)


class FixedGrid(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.grid = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 4, 1), torch.randn(1, 4, 64)

    def forward(self, x):
        return self.b(self.a(x).relu()).flatten(2) + self.grid


REFUSED = {
    "unrolled": (
        Unrolled,
        _tokens(5, (1, 4), (3, 4)),
        torch.randn(1, 6, 5),
        r"x of shape \(any, 4, 5\), not \(1, 6, 5\)",
    ),
    "grid": (FixedGrid, _images((1, 8, 8), (3, 8, 8)), torch.randn(1, 3, 8, 16), r"not \(1, 3, 8, 16\)"),
    "rank": (Segmenter, IMAGES, torch.randn(3, 16, 16), r"x of shape \(any, 3, any, any\), not \(3, 16, 16\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_sizes_that_can_t_be_followed_are_refused_by_name(name):
    make, (traced, *others), wrong, message = REFUSED[name]
    slim, reference = _slim(make(), traced)
    for inputs in others:
        _assert_same(slim, reference, *inputs)
    with pytest.raises(ModelError, match=message):
        slim(wrong)


def test_a_size_that_the_dense_network_takes_and_the_graph_form_does_not_is_noted():
    graph = sp.trace(Unrolled().eval(), torch.randn(1, 4, 5), form="graph")
    plan = sp.plan(graph, sp.score(graph, "l1"), {"params": 0.7}, align=1)
    assert plan.notes[0].startswith("the graph form takes x of size 4 on axis 1 only: ")


class HalvedAndWindowed(nn.Module):
    """Makes 12 pixels of 12 and of 13, and then takes multiples of 4 alone."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        x = F.interpolate(F.avg_pool2d(self.a(x), 2), scale_factor=2.0)
        b, c, h, w = x.shape
        return self.b(x.view(b, c, h // 4, 4, w // 4, 4).amax((3, 5)))


def test_a_size_at_which_no_number_moved_is_not_the_only_one_that_is_tried():
    slim, reference = _slim(HalvedAndWindowed(), torch.randn(1, 3, 12, 12))
    for images in _images((1, 12, 12), (1, 13, 12), (2, 16, 24), (1, 28, 13)):
        _assert_same(slim, reference, *images)


class OfOneOrTwoSizes(nn.Module):
    """Takes 12 pixels and 13, of which it makes the same, and no others."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 1), nn.Linear(12 * 36, 4)

    def forward(self, x):
        return self.b(F.avg_pool2d(self.a(x), 2).flatten(1))


def test_an_axis_that_has_one_other_size_alone_is_refused_by_name():
    model, image = OfOneOrTwoSizes(), torch.randn(1, 3, 12, 12)
    slim, reference = _slim(model, image)
    graph = sp.trace(model, image, form="graph")
    notes = sp.plan(graph, sp.score(graph, "l1"), {"params": 0.7}, align=1).notes
    assert any("x of size 12 on axis 2 only: beside it the network was seen to take 13 alone" in note for note in notes)
    _assert_same(slim, reference, torch.randn(2, 3, 12, 12))
    with pytest.raises(ModelError, match=r"takes x of shape \(any, 3, 12, 12\), not \(1, 3, 13, 12\)"):
        slim(torch.randn(1, 3, 13, 12))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        y = self.b(self.a(x).relu())
        return y.tanh() if y.shape[2] * 2 > 40 else y


def test_a_path_that_depends_on_the_size_is_not_taken_silently():
    slim, reference = _slim(Branching(), torch.randn(1, 3, 16, 16))
    _assert_same(slim, reference, torch.randn(2, 3, 20, 30))
    with pytest.raises(ModelError, match=r"test_sizes.py:\d+ the dense network's code compares sizes"):
        slim(torch.randn(1, 3, 21, 16))


def test_a_constant_that_the_code_writes_to_is_made_anew():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x):
            offset = torch.tensor([1.0, 2.0, 3.0, 4.0])
            offset[1:3] += 5
            return self.b(self.a(x).relu()) + offset

    slim, reference = _slim(Written(), torch.randn(1, 8))
    x = torch.randn(3, 8)
    _assert_same(slim, reference, x)
    _assert_same(slim, reference, x)


NUMBERS = {
    "arange": lambda y, n: y * torch.arange(n)[None, :, None],
    "linspace": lambda y, n: y * torch.linspace(0, 1, n)[None, :, None],
    "power": lambda y, n: y.abs() ** (1 / n),
    "clamp": lambda y, n: y.clamp(max=n),
    "difference": lambda y, n: n - y,
    "fill": lambda y, n: y.masked_fill(y == 0, n),
    "in place": lambda y, n: y.clone().clamp_(max=n),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_follow_sizes_are_counted_and_exported(name):
    """fvcore and the exporter trace, and then a size is a tensor."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x):
            return self.b(NUMBERS[name](self.a(x).relu(), x.shape[1]))

    net, x = Net().eval(), torch.randn(1, 6, 8)
    graph = sp.trace(net, x, form="graph")
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    slim = sp.prune(net, plan)
    assert sum(count_macs(slim, x).values()) == plan.macs["slim"]
    gate = sp.verify(net, slim, plan, x)
    assert gate.passed, gate.reasons()
    assert gate.onnx.passed, gate.onnx.detail
    assert slim(torch.randn(2, 9, 8)).shape == (2, 9, 4)
