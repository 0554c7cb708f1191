"""What a graph and a cost model say of themselves as JSON: `structprune inspect` and `structprune profile`."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from pydantic import Field

from .. import graph as graphs
from ..cost import CostModel
from ..graph import DependencyGraph, count_group
from ..json_records import JsonRecord
from ..plan.alignment import aligned
from ..records import Plan
from .records import Barrier, Group


class GraphSummary(JsonRecord):
    """What can be pruned of a network, and what can't."""

    form: str = Field(description="what a slim network would be: `module` or `graph`")
    nodes: int = Field(description="calls in a forward pass")
    macs: int = Field(description="multiply-adds of a forward pass")
    params: int = Field(description="parameters")
    groups: list[Group] = Field(description="channels that go or stay together")
    barriers: list[Barrier] = Field(description="channels that have to stay, and why")
    whole: dict[str, str] = Field(description="layers all of whose channels stay, by path, and why")


class KernelSummary(JsonRecord):
    """A kernel of the dense network."""

    name: str = Field(description="what the runtime calls it")
    layer: str = Field(description="module path")
    op: str = Field(description="the runtime's operator")
    ms: float = Field(description="what it takes")


class GroupStep(JsonRecord):
    """Which widths of a group gain anything."""

    name: str = Field(description="the leading layer")
    channels: int = Field(description="its channels")
    step: int = Field(description="widths between two multiples of it gain nothing")


class CostSummary(JsonRecord):
    """What a forward pass takes on a runtime."""

    runtime: str = Field(description="its name with versions and settings")
    dense_ms: float = Field(description="milliseconds of the dense network")
    steps: dict[str, int] = Field(description="by kind of layer what widths are best multiples of")
    probes: int = Field(description="slim networks that were timed")
    error: float = Field(description="median relative error on networks that the fit had not seen")
    unmatched: float = Field(description="share of the time in kernels whose sizes follow no known axis")
    fixed: float = Field(description="share of the time that no width changes")
    kernels: list[KernelSummary] = Field(description="those of the dense network")
    groups: list[GroupStep] = Field(description="each group")


def describe_groups(graph: DependencyGraph, plan: Plan | None = None) -> list[Group]:
    """The groups of a graph, with what a plan keeps of each if there is one."""
    groups = [_group(graph, group) for group in graph.groups]
    if plan is None:
        return groups
    kept = [_kept_channels(group, plan) for group in graph.groups]
    merged = [_merged_units(group.name, plan) for group in groups]
    updates = [{"kept_channels": k, "merged_units": m} for k, m in zip(kept, merged, strict=True)]
    return [group.model_copy(update=update) for group, update in zip(groups, updates, strict=True)]


def _group(graph: DependencyGraph, group: graphs.Group) -> Group:
    counts = count_group(graph, group)
    return Group(
        name=group.name,
        channels=group.channels,
        units=group.units,
        params=counts["params"],
        macs=counts["macs"],
        kind=group.kind,
    )


def _merged_units(name: str, plan: Plan) -> int | None:
    """How many units of a group were merged into others; None if the plan merges nothing."""
    if plan.merges is None:
        return None
    into = plan.merges["groups"].get(name, [])
    return sum(place not in (unit, -1) for unit, place in enumerate(into))


def _kept_channels(group: graphs.Group, plan: Plan) -> int:
    if group.name in plan.groups:
        return group.channels_of(len(plan.groups[group.name]["kept"]))
    kept = plan.keep.get(group.leading.key, {}).get(str(group.leading.dim))  # composed of plans that do not tell
    return group.channels if kept is None else len(np.ravel(kept))


def describe_graph(graph: DependencyGraph) -> GraphSummary:
    """What `structprune inspect --json` prints."""
    return GraphSummary(
        form=graph.form,
        nodes=graph.nodes,
        macs=graph.macs(),
        params=graph.params(),
        groups=describe_groups(graph),
        barriers=[Barrier(**asdict(barrier)) for barrier in graph.barriers],
        whole=dict(graph.whole_layers),
    )


def describe_cost(graph: DependencyGraph, cost: CostModel) -> CostSummary:
    """What `structprune profile --json` prints."""
    multiples = aligned(graph, cost.multiples)
    return CostSummary(
        runtime=cost.runtime.name,
        dense_ms=cost.dense_ms,
        steps=cost.multiples,
        probes=cost.probes,
        error=cost.error,
        unmatched=cost.unmatched,
        fixed=cost.fixed,
        kernels=[KernelSummary(name=k.name, layer=k.layer, op=k.op, ms=k.dense_ms) for k in cost.kernels],
        groups=[GroupStep(name=g.name, channels=g.channels, step=multiples[g.name]) for g in graph.groups],
    )
