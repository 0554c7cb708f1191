"""Which units are ranked together: those that the same layers make, factor by factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .axes import alike
from .flow import Flow, Produced
from .units import Cause, Resolution


@dataclass
class CandidateGroup:
    """A group before it is known what it controls: its removable classes `ids`, the stratum of each, how many of each
    stratum go at a time, and the layer nearest to the input that makes them."""

    name: str
    leader: Produced
    ids: np.ndarray
    strata: np.ndarray
    rates: tuple[int, ...]


def candidate_groups(flow: Flow, resolution: Resolution) -> tuple[list[CandidateGroup], list[tuple[np.ndarray, Cause]]]:
    """Candidates in the order in which their leading layers were met, and classes that can't be in one, each with why.

    Classes that appear in one column of a layer's channels belong together, and so do classes that must lose the same
    number. Where a layer's channels are a product, its factors are groups of their own.
    """
    columns = [(p, column) for p in flow.produced for column in _columns(resolution.of(p.axis))]
    links = [(column[:-1], column[1:]) for _, column in columns]
    for balanced in resolution.strata:
        together = np.concatenate(balanced)
        links.append((together[:-1], together[1:]))
    if not links:
        return [], []
    left, right = (np.concatenate(side) for side in zip(*links, strict=True))
    shape = (resolution.classes, resolution.classes)
    _, labels = connected_components(coo_array((np.ones(len(left), bool), (left, right)), shape=shape), directed=False)
    balance, stratum = np.zeros(resolution.classes, int), np.zeros(resolution.classes, int)
    for which, balanced in enumerate(resolution.strata):
        for number, part in enumerate(balanced):
            balance[part], stratum[part] = which + 1, number
    members_of: dict[tuple[int, int], list[tuple[Produced, np.ndarray]]] = {}
    for produced, column in columns:
        free = column[~resolution.frozen[column]]
        for which in sorted(set(balance[free].tolist())):  # each balance apart, and what is in none
            part = free[balance[free] == which]
            members_of.setdefault((int(labels[part[0]]), which), []).append((produced, part))
    groups: list[CandidateGroup] = []
    stays: list[tuple[np.ndarray, Cause]] = []
    for (_, which), members in members_of.items():
        leader = min((p for p, _ in members), key=lambda p: p.depth)
        ordered = [part for p, part in members if p is leader] + [part for _, part in members]
        ids = np.concatenate(ordered)
        _, first = np.unique(ids, return_index=True)
        ids = ids[np.sort(first)]  # in the order of the leading layer's filters
        _, own = np.unique(stratum[ids], return_inverse=True)
        if which and int(own.max()) + 1 < len(resolution.strata[which - 1]):
            reason = "must lose as many channels as a part beside it, from which nothing can go"
            stays.append((ids, _because(leader, reason)))
            continue
        rates = tuple(resolution.rates[which - 1]) if which else (1,)
        if (np.bincount(own.ravel()) <= rates).any():  # one of each must stay
            alone = len(leader.axis) == 1
            reason = "the only channel of a layer" if alone else "these channels could only go all together"
            stays.append((ids, _because(leader, reason, barrier=not alone)))
            continue
        groups.append(CandidateGroup(_layer_name(leader.key), leader, ids, own.ravel(), rates))
    _name_factors(groups, flow, resolution)
    return groups, stays


def _because(leader: Produced, reason: str, barrier: bool = True) -> Cause:
    """Why classes stay that can't go without others."""
    return Cause("balance", leader.key, _layer_name(leader.key), reason, barrier=barrier)


def _columns(axis: np.ndarray) -> list[np.ndarray]:
    """The classes in each column, apart for positions that carry unlike numbers of classes."""
    if axis.shape[1] == 1:
        return [axis[axis >= 0]]
    return [column for rows, pattern in alike(axis) for column in axis[rows][:, pattern].T]


def _name_factors(groups: list[CandidateGroup], flow: Flow, resolution: Resolution) -> None:
    """Tells apart groups of one layer: by the attribute that counts them (num_heads), else by a number."""
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.name] = counts.get(group.name, 0) + 1
    counted: dict[frozenset[int], str] = {}
    for attribute in flow.attributes:
        if attribute.source is not None and attribute.axis is not None and attribute.flag is None:
            classes = resolution.of(attribute.axis)
            if classes.shape[1] == 1:
                counted.setdefault(frozenset(classes[:, 0].tolist()), attribute.source.name.rpartition(".")[2])
    used: set[str] = set()
    for group in groups:
        name = group.name
        if counts[name] > 1:
            members = set(group.ids.tolist())
            label = next((n for axis, n in counted.items() if members <= axis), "")
            name = f"{name}:{label}" if label else name
        number, stem = 2, name
        while name in used:
            name, number = f"{stem}#{number}", number + 1
        used.add(name)
        group.name = name


def _layer_name(key: str) -> str:
    stem, _, last = key.rpartition(".")
    return stem if last in ("weight", "weight_ih", "weight_ih_l0") and stem else key
