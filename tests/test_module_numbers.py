"""Sizes that code reads from a configuration, a dict, its class or as numpy's follow the widths in module form."""

import argparse
import collections
import copy
import dataclasses
import types
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.module_numbers import read
from structprune.suites.equality import assert_slim_equals_masked, random_plan

TOKENS = torch.randn(2, 5, 8)


@dataclasses.dataclass
class Config:
    hidden: int = 12
    heads: int = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    hidden: int = 12


Named = collections.namedtuple("Named", "hidden heads")


class Net(nn.Module):
    """Adds zeros, whose width is a number that `read` finds, to what a layer makes."""

    def __init__(self, read, **held):
        super().__init__()
        self.read = read
        for name, value in held.items():
            setattr(self, name, value)
        self.enter, self.leave = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x):
        width = self.read(self)
        x = self.enter(x).reshape(-1, width)
        return self.leave(torch.zeros(len(x), width, dtype=x.dtype) + x)


class OfClass(Net):
    width = 12


class DictOfClass(Net):
    sizes: ClassVar = {"width": 12}


NETS = {
    "attribute": Net(lambda net: net.width, width=12),
    "dataclass": Net(lambda net: net.config.hidden, config=Config()),
    "frozen dataclass with slots": Net(lambda net: net.config.hidden, config=Frozen()),
    "namespace": Net(lambda net: net.config.hidden, config=types.SimpleNamespace(hidden=12)),
    "arguments": Net(lambda net: net.args.hidden, args=argparse.Namespace(hidden=12)),
    "named tuple": Net(lambda net: net.config.hidden, config=Named(12, 4)),
    "dict": Net(lambda net: net.cfg["hidden"], cfg={"hidden": 12}),
    "list in a dict": Net(lambda net: net.cfg["widths"][1], cfg={"widths": [3, 12]}),
    "dict in a dict": Net(lambda net: net.cfg["model"]["hidden"], cfg={"model": {"hidden": 12}}),
    "dict in a namespace": Net(lambda net: net.config.model["h"], config=types.SimpleNamespace(model={"h": 12})),
    "numpy": Net(lambda net: net.width, width=np.int64(12)),
    "tuple of numpy": Net(lambda net: net.widths[0], widths=(np.int32(12), np.int32(3))),
    "class": OfClass(lambda net: net.width),
    "dict of the class": DictOfClass(lambda net: net.sizes["width"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_a_number_follows_wherever_it_is_held(name):
    net = NETS[name]
    graph = assert_slim_equals_masked(net, TOKENS)
    assert [group.units for group in graph.groups] == [12]
    slim = sp.prune(net, random_plan(graph, 0))
    assert slim.read(slim) == slim.enter.out_features < 12
    assert type(slim.read(slim)) is type(net.read(net))
    assert net.read(net) == 12  # the dense network keeps its own


def test_what_the_class_says_stays():
    net = NETS["dict of the class"]
    sp.prune(net, random_plan(sp.trace(net.eval(), TOKENS), 0))
    assert DictOfClass.sizes == {"width": 12}


class Attention(nn.Module):
    """Reads heads and widths from a configuration that others may share."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.qkv, self.proj = nn.Linear(8, 3 * config.hidden), nn.Linear(config.hidden, 8)
        self.scale = (config.hidden // config.heads) ** -0.5

    def forward(self, x):
        batch, tokens, _ = x.shape
        wide = self.config.hidden // self.config.heads
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.config.heads, wide).permute(2, 0, 3, 1, 4).unbind(0)
        x = ((q @ k.transpose(-2, -1)) * self.scale).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, self.config.hidden))


def test_expressions_of_a_configuration():
    graph = assert_slim_equals_masked(Attention(Config()), TOKENS)
    assert {group.name: group.units for group in graph.groups} == {"qkv:heads": 4, "qkv": 3}


def test_modules_that_share_a_configuration_keep_equally_much():
    config = Config()
    net = nn.Sequential(Attention(config), nn.Linear(8, 8), Attention(config))
    graph = assert_slim_equals_masked(net, TOKENS)
    assert sorted((group.units, group.step) for group in graph.groups) == [(6, 2), (8, 1), (8, 1), (8, 2)]
    slim = sp.prune(net, random_plan(graph, 1))
    assert slim[0].config is slim[2].config
    assert slim[0].config is not config
    assert (config.hidden, config.heads) == (12, 4)


def test_a_configuration_that_copies_share_is_left_alone():
    class Shared(types.SimpleNamespace):
        def __deepcopy__(self, memo):
            return self

    config = Shared(hidden=12)
    net = Net(lambda net: net.config.hidden, config=config).eval()
    graph = sp.trace(net, TOKENS)
    assert not graph.groups
    assert "its size is a number in the model's code" in graph.barriers[0].reason
    assert type(config.hidden) is int


def test_the_code_of_a_module_may_hold_anything():
    """Logs, functions and cycles are no configurations, or have no numbers that matter."""
    ring = types.SimpleNamespace(next=None, hidden=12)
    ring.next = ring
    net = Net(lambda net: net.ring.next.hidden, ring=ring, kinds={int: 3, 5: 4, "a b": 6}, call=np.sin, empty=())
    before = copy.deepcopy(net.kinds)
    assert [group.units for group in assert_slim_equals_masked(net, TOKENS).groups] == [12]
    assert net.kinds == before
    assert read(net, "ring.hidden") == 12
