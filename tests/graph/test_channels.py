"""The graph is data: nobody changes it, whatever is asked of it."""

import dataclasses

import numpy as np
import pytest
import torch

import structprune as sp
from structprune.graph.channels import ChannelGraph
from tests.toys import Chain

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
