"""Sizes that a module's own code gives to ops follow the widths in module form."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.suites.equality import assert_slim_equals_masked

IMAGE = torch.randn(2, 3, 6, 6)
FORMS = ("module", "graph")


class Depthwise(nn.Module):
    """A depthwise convolution of the module's own making, whose groups and kernel are found by `run`."""

    def __init__(self, run, width=8, made=8, kernel=None):
        super().__init__()
        self.run, self.width = run, width
        self.enter, self.leave = nn.Conv2d(3, width, 1), nn.Conv2d(made, 3, 1)
        self.weight = nn.Parameter(torch.randn(made, 1, 3, 3) if kernel is None else kernel)

    def forward(self, x):
        return self.leave(self.run(self, self.enter(x).relu()))


OWN = {
    "attribute": Depthwise(lambda net, x: F.conv2d(x, net.weight, groups=net.width, padding=1)),
    "keyword first": Depthwise(lambda net, x: F.conv2d(groups=net.width, weight=net.weight, input=x)),
    "size": Depthwise(lambda net, x: F.conv2d(x, net.weight, groups=x.shape[1])),
    "size of the weight": Depthwise(lambda net, x: F.conv2d(x, net.weight, None, 1, 0, 1, len(net.weight))),
    "multiplier": Depthwise(lambda net, x: F.conv2d(x, net.weight, groups=net.width), made=16),
    "transposed": Depthwise(lambda net, x: F.conv_transpose2d(x, net.weight, groups=net.width)),
    "one kernel, expanded": Depthwise(
        lambda net, x: F.conv2d(x, net.weight.expand(net.width, -1, -1, -1), groups=net.width),
        kernel=torch.ones(1, 1, 3, 3),
    ),
    "one kernel, repeated": Depthwise(
        lambda net, x: F.conv2d(x, net.weight.repeat(x.size(1), 1, 1, 1), groups=x.size(1)),
        kernel=torch.ones(1, 1, 3, 3),
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OWN)
def test_groups_of_an_own_depthwise_convolution(name, form):
    graph = assert_slim_equals_masked(OWN[name], IMAGE, form=form)
    assert [group.units for group in graph.groups] == [8]
    assert not graph.barriers


def test_groups_that_are_a_number_in_the_code():
    net = Depthwise(lambda net, x: F.conv2d(x, net.weight, groups=8)).eval()
    assert not sp.trace(net, IMAGE).groups
    assert [group.units for group in assert_slim_equals_masked(net, IMAGE, form="graph").groups] == [8]


def test_a_stride_is_no_size_of_a_convolution():
    """On 3 × 3 pixels any stride makes one: only the number tells that it follows a width, and other images that it
    matters."""
    net = Depthwise(lambda net, x: F.conv2d(x, net.weight, stride=x.shape[1], groups=x.shape[1]))
    graph = sp.trace(net, IMAGE[:, :, :3, :3])
    assert not graph.groups
    assert "a number that the model's code works out from a width" in graph.barriers[0].reason


class Copies(nn.Module):
    def __init__(self, run, wide=8):
        super().__init__()
        self.run, self.width, self.one = run, 8, nn.Parameter(torch.randn(1, 1, 8))
        self.a, self.b, self.leave = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(wide, 3)

    def forward(self, x):
        return self.leave(self.run(self, x))


COPIES = {
    "of one position": Copies(lambda net, x: net.a(x).mean(-1, keepdim=True).repeat(1, 1, net.width) * net.b(x)),
    "of samples": Copies(lambda net, x: torch.cat([net.one.repeat(len(x), 1, 1), net.a(x) + net.b(x)], 1)),
    "of channels": Copies(lambda net, x: (net.a(x) * net.b(x)).repeat(1, 1, 2), wide=16),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", COPIES)
def test_copies(name, form):
    graph = assert_slim_equals_masked(COPIES[name], torch.randn(2, 4, 8), form=form)
    assert not graph.barriers
    assert sum(group.units for group in graph.groups) == (16 if name == "of one position" else 8)


def test_a_layer_whose_number_counts_something_else_too_keeps_as_much():
    """`a.out_features` is the width of `b` as well."""
    net = Copies(lambda net, x: net.a(x).mean(-1, keepdim=True) * net.b(x).reshape(len(x), -1, net.a.out_features))
    graph = assert_slim_equals_masked(net, torch.randn(2, 4, 8))
    assert [(group.units, group.step) for group in graph.groups] == [(16, 2)]
