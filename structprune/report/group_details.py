"""groups.json: the members of each group of a network, and the scores that it was cut by, for the page to show.

Enters a graph, the scores and the plan; leaves a record of bounded size, whatever the network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from .. import graph as graphs
from ..graph import DependencyGraph
from ..json_records import JsonRecord
from ..records import Plan, Scores

SCHEMA: Literal["structprune.groups/1"] = "structprune.groups/1"
SCORES, ALL_SCORES, FEWEST = 256, 100_000, 16  # of a group, of all groups, and of a group where these are very many
LAYERS = 16  # that are named of each kind
DIGITS = 4
_KINDS = {"filter": "made_by", "consumer": "read_by"}  # every other role is of what channels pass through


class Members(JsonRecord):
    """Layers of one kind."""

    layers: list[str] = Field(description=f"their module paths, {LAYERS} at most")
    more: int = Field(description="how many others there are")


class GroupScores(JsonRecord):
    """The scores by which a group was cut, the highest first."""

    units: int = Field(description="how many units have one")
    kept: int = Field(description="how many of them stay: the cut is behind so many")
    values: list[float] = Field(description=f"the scores, with {DIGITS} digits")
    ranks: list[int] | None = Field(
        default=None,
        description="the rank of each value, from 0, where not all are held: they lie evenly between the highest and "
        "the lowest, and the two beside the cut are among them",
    )
    exceptions: list[int] = Field(
        default_factory=list,
        description="places in `values` on the other side of the cut than their rank: units that stay so that no layer "
        "or part of the group is left empty, and those that go for them",
    )


class GroupDetails(JsonRecord):
    """A group: who makes and who reads its channels, and its scores."""

    name: str = Field(description="the leading layer")
    made_by: Members = Field(description="layers whose filters these channels are")
    passes: Members = Field(description="layers that they pass through: normalisation, depthwise layers, tables")
    read_by: Members = Field(description="layers that read them")
    feeds: list[str] = Field(description="groups that a layer makes which reads these channels")
    barriers: list[int] = Field(
        description="those of the report, by their places, that are in one of its layers' modules"
    )
    scores: GroupScores | None = Field(description="`null` where the criterion gave it none")
    unscored: str = Field(default="", description="why it has none")


class RunGroups(JsonRecord):
    """groups.json of a run."""

    schema_: Literal["structprune.groups/1"] = Field(
        alias="schema", description="rises when a field changes its meaning or goes, not when one is added"
    )
    criterion: str = Field(description="what gave the scores")
    rounds: int = Field(description="how often the network was cut; the scores are those of the last cut")
    held: int = Field(description="the most scores that are held of a group")
    groups: list[GroupDetails] = Field(description="each group, in the order of the network")


def describe_members(graph: DependencyGraph, scores: Scores, plan: Plan, rounds: int = 1) -> RunGroups:
    """What a run keeps of its groups beside its report.

    Args:
        graph: The dense network's.
        scores: By which the last cut was made.
        plan: The last cut.
        rounds: How often the network was cut.

    Returns:
        The record. It holds 256 scores of a group at most, and 100,000 of all, but 16 of each.
    """
    members = {group.name: _members(group) for group in graph.groups}
    makers: dict[str, list[str]] = {}
    for name, layers in members.items():
        for layer in layers["made_by"]:
            makers.setdefault(layer, []).append(name)
    held = max(FEWEST, min(SCORES, ALL_SCORES // max(len(members), 1)))
    groups = []
    for name, layers in members.items():
        fed = dict.fromkeys(other for layer in layers["read_by"] for other in makers.get(layer, ()) if other != name)
        details = GroupDetails(
            name=name,
            **{kind: _listed(names) for kind, names in layers.items()},
            feeds=list(fed),
            barriers=_barriers(graph, {layer for names in layers.values() for layer in names}),
            scores=_scores(name, scores, plan, held),
            unscored=scores.unscored.get(name, ""),
        )
        groups.append(details)
    return RunGroups(schema=SCHEMA, criterion=scores.criterion, rounds=rounds, held=held, groups=groups)


def sampled(values: np.ndarray, stays: np.ndarray, most: int) -> GroupScores:
    """The scores of a group as they are shown.

    Args:
        values: Shape (units,).
        stays: Likewise, whether each unit stays.
        most: How many are held.

    Returns:
        All of them, or as many that lie evenly by rank, with the two beside the cut.
    """
    order = np.argsort(-values, kind="stable")
    units, kept = len(values), int(stays.sum())
    ranks = np.arange(units)
    if units > most:
        even = np.linspace(0, units - 1, most - 2).round().astype(int)
        ranks = np.unique([*even, max(kept - 1, 0), min(kept, units - 1)])
    is_before = ranks < kept
    exceptions = np.flatnonzero(stays[order][ranks] != is_before)
    return GroupScores(
        units=units,
        kept=kept,
        values=[float(f"{value:.{DIGITS}g}") for value in values[order][ranks]],
        ranks=None if units <= most else ranks.tolist(),
        exceptions=exceptions.tolist(),
    )


def _scores(name: str, scores: Scores, plan: Plan, held: int) -> GroupScores | None:
    values, entry = scores.values.get(name), plan.groups.get(name)
    if values is None or entry is None or len(values) != entry["units"] or not np.isfinite(values).all():
        return None
    stays = np.zeros(len(values), bool)
    stays[entry["kept"]] = True
    return sampled(np.asarray(values, float), stays, held)


def _members(group: graphs.Group) -> Mapping[str, list[str]]:
    """The paths of a group's layers by kind; one that makes the channels is not named among those that they pass."""
    members: dict[str, dict[str, None]] = {"made_by": {}, "passes": {}, "read_by": {}}
    for part in group.slices:
        members[_KINDS.get(part.role, "passes")][part.key.rpartition(".")[0] or part.key] = None
    return {
        kind: [layer for layer in layers if kind != "passes" or layer not in members["made_by"] | members["read_by"]]
        for kind, layers in members.items()
    }


def _listed(layers: Sequence[str]) -> Members:
    return Members(layers=list(layers[:LAYERS]), more=max(len(layers) - LAYERS, 0))


def _barriers(graph: DependencyGraph, layers: Collection[str]) -> list[int]:
    return [index for index, barrier in enumerate(graph.barriers) if barrier.module and _holds(barrier.module, layers)]


def _holds(module: str, layers: Iterable[str]) -> bool:
    return any(layer == module or layer.startswith(f"{module}.") for layer in layers)
