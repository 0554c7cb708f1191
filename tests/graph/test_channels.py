"""The graph is data: nobody changes it, whatever is asked of it."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.graph.channels import ChannelGraph
from tests.example_networks import Chain

X = torch.randn(1, 3, 10, 10)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ChannelGraph)] + ["barriers", "anything"])
def test_no_attribute_of_a_graph_can_be_set(name):
    graph = sp.trace(Chain().eval(), X)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(graph, name, None)


def test_what_a_graph_lists_are_tuples():
    graph = sp.trace(Chain().eval(), X)
    for name in ("groups", "notes", "macs_terms", "params_terms", "statistics", "attributes", "paths", "barriers"):
        assert isinstance(getattr(graph, name), tuple), name


@pytest.mark.parametrize("name", ["axes", "shapes", "values", "reasons", "whole_layers"])
def test_what_a_graph_maps_stays_as_it_is(name):
    graph = sp.trace(Chain().eval(), X)
    with pytest.raises(TypeError, match="does not support item assignment"):
        getattr(graph, name)["x"] = None


@pytest.mark.parametrize("form", ["module", "graph"])
def test_planning_leaves_the_graph_as_it_was(form):
    graph = sp.trace(Chain().eval(), X, form=form)
    before = {field.name: getattr(graph, field.name) for field in dataclasses.fields(graph)}
    plans = [sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1) for _ in range(2)]
    assert plans[0] == plans[1]
    assert all(getattr(graph, name) is value for name, value in before.items())


def test_a_graph_with_other_groups_counts_by_those():
    graph = sp.trace(Chain().eval(), X)
    first, *others = graph.groups
    fewer = dataclasses.replace(graph, groups=tuple(others))
    kept = {first.name: np.arange(1)}
    assert graph.in_group[first.ids].all()
    assert not fewer.in_group[first.ids].any()
    assert fewer.macs(kept) == fewer.macs() == graph.macs() > graph.macs(kept)


class ByBatch(nn.Module):
    """Goes another way for one sample."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = self.a(x)
        return self.b(y if len(x) == 1 else y.relu())


class Heads(nn.Module):
    """Channels that are a product, under a norm, and beside them blocks that must stay equally long."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.Conv2d(8, 4, 1)
        self.wide, self.grouped, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.b(self.norm(self.a(x))) + self.c(self.grouped(self.wide(x)).relu())


def arrays(value, path="graph", visited=None):
    """Each array that a graph holds, by where it is; not those of the model and of the recording."""
    visited = set() if visited is None else visited
    if id(value) in visited:
        return
    visited.add(id(value))
    if isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from arrays(item, f"{path}[{key!r}]", visited)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from arrays(item, f"{path}[{i}]", visited)
    elif dataclasses.is_dataclass(value) and type(value).__module__.startswith("structprune.graph"):
        for name, item in vars(value).items():
            if name != "recording":
                yield from arrays(item, f"{path}.{name}", visited)


@pytest.mark.parametrize("kind", [Chain, ByBatch, Heads])
@pytest.mark.parametrize("form", ["module", "graph"])
def test_no_array_of_a_graph_can_be_written_to(kind, form):
    graph = sp.trace(kind().eval(), torch.randn(2, 3, 10, 10), form=form)
    sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)  # with what is kept once it was asked for
    assert bool(graph.paths) == (kind is ByBatch and form == "graph")
    assert bool(graph.resolution.strata) == (kind is Heads)
    places = dict(arrays(graph))
    assert {".index", ".ids", ".strata", ".table", ".frozen"} <= {"." + p.rpartition(".")[2] for p in places}
    writeable = [path for path, array in places.items() if array.flags.writeable]
    assert writeable == []
    with pytest.raises(ValueError, match="read-only"):
        graph.groups[0].leading.index[0] = 5
