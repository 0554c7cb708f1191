"""Merging: of each cluster of like units one stays, which computes their mean, with the sum of consumers' columns.

Enters a plan that says how many units stay; leaves one by which as many stay, and the others are merged into them. Like
are units whose filters are, of all layers that make them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import PlanError
from ..graph import DependencyGraph, Group
from ..graph.group import Slice
from ..graph.layers import Layer, find_layers, sole_layers
from ..graph.mergeable import Mergeable, find_mergeable
from ..modules import tensors
from ..plan_schema import KeptAxes, MergedAxis, MergedNorm, Merges, in_blocks
from ..records import Plan
from .clustering import cluster
from .planning import realise

_MADE_BY = ("filter", "passed")


def merge(graph: DependencyGraph, plan: Plan) -> Plan:
    """Makes a plan that merges units where another drops them.

    Each group keeps as many units as before, of each kind of interchangeable ones. Groups that can't be merged are cut
    as before, and notes say why.

    Args:
        graph: What `trace` gives.
        plan: A plan for it.

    Returns:
        Another plan, whose `merges` say what is merged into what.
    """
    mergeable = find_mergeable(graph)
    features = _Features(graph)
    into: dict[str, np.ndarray] = {}
    for group in graph.groups:
        kept = np.array(plan.groups[group.name]["kept"])
        if len(kept) < group.units and group.name in mergeable.labels:
            into[group.name] = _merged_units(group, kept, mergeable.labels[group.name], features)
    into = {name: units for name, units in into.items() if _merges_any(units)}
    stays = {name: np.array(entry["kept"]) for name, entry in plan.groups.items()}
    stays |= {name: np.flatnonzero(units == np.arange(len(units))) for name, units in into.items()}
    new = realise(graph, stays, plan.criterion, plan.allocation, plan.budget, plan.constraints)
    notes = [*plan.notes, *_notes(graph, plan, mergeable)]
    merges: Merges | None = None
    if into:
        axes = _merged_axes(graph, mergeable, into, new.keep)
        merges = {
            "groups": {name: units.tolist() for name, units in into.items()},
            "axes": axes,
            "norms": list(_merged_norms(graph, axes)),
        }
    return dataclasses.replace(new, notes=list(dict.fromkeys(notes)), latency=plan.latency, merges=merges)


def _merges_any(into: np.ndarray) -> bool:
    return bool((into >= 0).sum() > len(np.unique(into[into >= 0])))


def _merged_units(group: Group, kept: np.ndarray, labels: np.ndarray, features: _Features) -> np.ndarray:
    """For each unit the one that it is merged into; itself if it stays, and -1 if it is dropped."""
    into = np.full(group.units, -1)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = int(np.isin(members, kept).sum())
        if not count:
            continue
        rows = features.of(group, members)
        clusters = cluster(rows, count)
        for number in range(count):
            mine, own = members[clusters == number], rows[clusters == number]
            gaps = np.linalg.norm(own - own.mean(axis=0), axis=1)
            nearest = gaps <= gaps.min() + 1e-6 * np.linalg.norm(own)  # of those that are equally near the first stays
            into[mine] = mine[nearest.argmax()]
    return into


class _Features:
    """What units are compared by: their rows of all layers that make them."""

    def __init__(self, graph: DependencyGraph) -> None:
        self._state = {key: tensor.detach() for key, tensor in tensors(graph.model).items()}
        self._layers = sole_layers(graph.recording)

    def of(self, group: Group, units: np.ndarray) -> np.ndarray:
        """The rows of some units, shape (units, features), in which each layer weighs the same."""
        parts = []
        for s in group.slices:
            if s.role in _MADE_BY:
                positions = _positions(s, units)
                if positions is not None:
                    rows = self._rows(s)[positions].reshape(len(units), -1)
                    if not np.isfinite(rows).all():
                        raise PlanError(f"merging compares filters, and {s.key} holds NaN or infinite values")
                    size = np.sqrt((rows**2).sum())
                    parts.append(rows / size if size else rows)
        rows = np.concatenate(parts, axis=1) if parts else np.zeros((len(units), 1))
        return rows * self._use(group, units)[:, None]

    def _use(self, group: Group, units: np.ndarray) -> np.ndarray:
        """How much consumers make of units: by the sizes of their columns, in which each consumer weighs the same.

        What is lost where a filter becomes the mean of others is in proportion to that.
        """
        use = np.zeros(len(units))
        for s in group.slices:
            weight = self._state[s.key]
            positions = _positions(s, units) if s.role == "consumer" else None
            if positions is not None and len(s.index) == weight.shape[s.dim]:  # no blocks
                sizes = np.linalg.norm(_numbers(weight.movedim(s.dim, 0).flatten(1)), axis=1)
                usual = np.sqrt((sizes**2).mean())
                use += np.linalg.norm(sizes[positions], axis=1) / usual if usual else 0.0
        return np.maximum(use, 1e-3) if use.any() else np.ones(len(units))

    def _rows(self, s: Slice) -> np.ndarray:
        """The filters of a layer, and its offsets where no BatchNorm has others. A negative BatchNorm turns them round.

        How much a BatchNorm scales and shifts them does not count: filters that it makes small would all be in one
        cluster, and little of them left (docs/fidelity.md).
        """
        rows = _numbers(self._state[s.key].movedim(s.dim, 0).flatten(1))
        layer = self._layers.get(s.key)
        if layer is None:
            return rows
        if layer.norm is not None and layer.norm.weight:
            gains = _numbers(self._state[layer.norm.weight])
            return np.where(gains < 0, -1, 1)[:, None] * rows if len(gains) == len(rows) else rows
        bias = _numbers(self._state[layer.bias]) if layer.bias and layer.norm is None else rows[:, :0]
        return np.concatenate([rows, bias[:, None]], axis=1) if bias.shape == rows.shape[:1] else rows


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def _positions(s: Slice, units: np.ndarray) -> np.ndarray | None:
    """The positions of each unit on an axis, shape (units, positions of each); None where it has none."""
    column = s.index.max(axis=1)
    order = np.argsort(column, kind="stable")
    starts = np.searchsorted(column[order], units)
    ends = np.searchsorted(column[order], units, side="right")
    each = int(ends[0] - starts[0])
    return None if each == 0 else order[starts[:, None] + np.arange(each)]


def _merged_axes(
    graph: DependencyGraph, mergeable: Mergeable, into: Mapping[str, np.ndarray], keep: Mapping[str, KeptAxes]
) -> dict[str, dict[str, MergedAxis]]:
    """What each axis of a parameter or buffer of which positions are merged is merged into, and how."""
    flat: dict[tuple[str, int], np.ndarray] = {}
    for group in graph.groups:
        units = into.get(group.name)
        if units is None:
            continue
        for s in group.slices:
            places = flat.setdefault((s.key, s.dim), _kept_places(keep.get(s.key, {}).get(str(s.dim)), len(s.index)))
            for label in np.unique(mergeable.labels[group.name]):
                members = np.flatnonzero((mergeable.labels[group.name] == label) & (units >= 0))
                positions = _positions(s, members) if len(members) else None
                if positions is not None:
                    where = {int(unit): row for unit, row in zip(members, positions, strict=True)}
                    for unit in members:
                        places[where[int(unit)]] = where[int(units[unit])]
    result: dict[str, dict[str, MergedAxis]] = {}
    for (key, dim), places in sorted(flat.items()):
        if _merges_any(places):
            size = graph.shapes[key][dim]
            rows = np.where(places < 0, -1, places - np.arange(len(places)) // size * size).reshape(-1, size).tolist()
            is_blocks = in_blocks(keep[key][str(dim)])
            entry: MergedAxis = {"by": mergeable.uses[key, dim], "into": rows if is_blocks else rows[0]}
            result.setdefault(key, {})[str(dim)] = entry
    return result


def _kept_places(kept: Any, length: int) -> np.ndarray:
    """For each position itself if it is kept, -1 if not. Those of blocks follow each other."""
    if kept is None:
        return np.arange(length)
    blocks = kept if in_blocks(kept) else [kept]
    places = np.full(length, -1)
    for number, block in enumerate(blocks):
        at = np.array(block) + number * (length // len(blocks))
        places[at] = at
    return places


def _merged_norms(graph: DependencyGraph, axes: Mapping[str, Mapping[str, MergedAxis]]) -> Iterator[MergedNorm]:
    """The BatchNorms of which channels are merged, each with the layer before it whose filters it scales."""
    _, norms = find_layers(graph.recording)
    uses = Counter(key for norm in norms for key in (norm.weight, norm.bias, norm.mean, norm.variance) if key)
    before = {layer.norm: layer for layer in sole_layers(graph.recording).values() if layer.norm is not None}
    for norm in norms:
        keys = [key for key in (norm.weight, norm.bias, norm.mean, norm.variance) if key]
        if norm.mean not in axes or any(uses[key] > 1 or key not in axes for key in keys):
            continue
        entry: MergedNorm = {
            "weight": norm.weight,
            "bias": norm.bias,
            "mean": norm.mean,
            "variance": norm.variance,
            "eps": norm.eps,
            "layer": None,
        }
        layer = before.get(norm)
        if layer is not None:
            axis = str(_made_axis(layer, axes))
            own = [axes.get(layer.weight, {}).get(axis), *([axes.get(layer.bias, {}).get("0")] if layer.bias else [])]
            if all(one == axes[norm.mean]["0"] for one in own):
                entry["layer"] = {"weight": layer.weight, "axis": axis, "bias": layer.bias}
        if entry["layer"] or (norm.weight and norm.bias):
            yield entry


def _made_axis(layer: Layer, axes: Mapping[str, Mapping[str, MergedAxis]]) -> int:
    """The axis of a layer's weight along which its outputs lie."""
    return 1 if layer.transposed and "1" in axes.get(layer.weight, {}) else 0


def _notes(graph: DependencyGraph, plan: Plan, mergeable: Mergeable) -> list[str]:
    """Which groups are dropped from though merging was asked for, by reasons."""
    reasons: dict[str, list[str]] = {}
    for group in graph.groups:
        if len(plan.groups[group.name]["kept"]) < group.units and group.name in mergeable.hindrances:
            reasons.setdefault(mergeable.hindrances[group.name], []).append(group.name)
    return [
        f"{len(names)} of {len(graph.groups)} groups drop channels instead of merging them ({', '.join(names[:3])}"
        f"{', …' if len(names) > 3 else ''}): {reason}"
        for reason, names in reasons.items()
    ]
