"""Which units can be merged: those that may compute the same without anything else in the network changing.

A cluster of units is *tied* when all of them compute the same, the mean of what they computed. The network in which
they are tied equals the one in which a single unit stands for them, with the sum of their consumers' columns, if
nothing but the layers that hold these columns adds channels up. So a group is merged only if

- each of its channels carries one unit of it alone, and none of another group (heads × channels carry two),
- what consumes it is convolutions and linear layers by weights that are parameters, and every other op passes each
  channel by itself (no statistic over channels, no product of two tensors' channels).

Units are *interchangeable* if they stand on the same axes equally often, and in the same blocks of grouped
convolutions: then one may stand for the other everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import fx

from ..ops import op_name
from ..ops.record import CONVOLUTIONS, OpRecord, record_of
from .channels import ChannelGraph, Place
from .group import Group
from .recorded_calls import op_calls
from .values import all_axes

Use = Literal["mean", "sum"]  # what becomes of the slices of a parameter whose units are merged
_LAYERS = (*CONVOLUTIONS, "linear")
_CONTRACTING = ("product", "recurrent")  # kinds of ops that add channels up
_CONTRACTIONS = frozenset(("mv", "dot", "vdot", "scaled_dot_product_attention", "bilinear", "cosine_similarity"))
_PARTS = frozenset(("slice", "narrow", "select", "index_select"))  # whose result lacks channels that are not added up


@dataclass(frozen=True)
class Mergeable:
    """What merging needs to know of a network.

    Attributes:
        uses: for each axis of a parameter or buffer whether merged units' slices are averaged or added up.
        hindrances: for each group that can't be merged the reason, as in "… of its channels".
        labels: for each group that can be merged a number for each unit; those of one number are interchangeable.
    """

    uses: dict[Place, Use]
    hindrances: dict[str, str]
    labels: dict[str, np.ndarray]


def find_mergeable(graph: ChannelGraph) -> Mergeable:
    """Finds the groups of a network that can be merged, and which of their units are interchangeable.

    Args:
        graph: What `trace` gives.

    Returns:
        What merging needs to know.
    """
    passes = _Passes(graph)
    for node in op_calls(graph.recording):
        passes.see(node)
    hindrances = {group.name: reason for group in graph.groups if (reason := _hindrance(graph, group, passes))}
    labels = {g.name: _labels(g, passes.axes) for g in graph.groups if g.name not in hindrances}
    uses: dict[Place, Use] = dict.fromkeys(passes.consumed - passes.passed, "sum")
    for group in graph.groups:
        for s in group.slices:
            only_in_training = (s.key, s.dim) not in passes.passed and s.role == "consumer"
            uses.setdefault((s.key, s.dim), "sum" if only_in_training else "mean")
    return Mergeable(uses, hindrances, labels)


@dataclass
class _Passes:
    """What the calls of a forward pass do to channels, call by call.

    `consumed` are the axes of parameters that layers add channels up along, `passed` those that are used otherwise.
    `summed` says of classes by which op they are added up in another way. `axes` are all axes of classes on which two
    units must stand alike to be interchangeable, by their bytes.
    """

    graph: ChannelGraph
    consumed: set[Place] = field(default_factory=set)
    passed: set[Place] = field(default_factory=set)
    summed: dict[int, str] = field(default_factory=dict)
    axes: dict[bytes, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for axis in self.graph.axes.values():
            self._note(axis)

    def see(self, node: fx.Node) -> None:
        """Notes what one call does."""
        name = op_name(node.target)
        record = record_of(name)
        is_layer, weight = record.kind in _LAYERS, None
        if is_layer:
            weight = record.read(node, "weight")
        for parent in node.all_input_nodes:
            key = self.graph.recording.parameters.get(parent.name)
            if key is None:
                continue
            dims = set(range(len(self.graph.shapes[key])))
            if parent is weight:
                entering = 0 if record.kind == "transposed convolution" else 1
                blocks = self._blocks(record, node)
                if not (blocks and _are_units(blocks)):
                    self.consumed.add((key, entering))
                    dims.discard(entering)
            self.passed |= {(key, dim) for dim in dims}
        entering_classes = _union(self._axes_of(parent) for parent in node.all_input_nodes)
        leaving = self._axes_of(node)
        for axis in leaving:
            self._note(axis)
        if record.kind in _CONTRACTING or name in _CONTRACTIONS:
            self._add_up(entering_classes, name)
            return
        lost = entering_classes - _union([leaving])
        if is_layer:
            x, at = record.read(node, "input"), -1 if record.kind == "linear" else 1
            entering_channels = _union([[self._axes_of(x)[at]]]) if len(self._axes_of(x)) > 1 else set()
            if isinstance(weight, fx.Node) and weight.name in self.graph.recording.parameters:
                lost -= entering_channels
                blocks = self._blocks(record, node)
                for block in itertools.chain(*blocks) if not _are_units(blocks) else ():
                    self._note(block)
            else:
                lost |= entering_channels
        if name not in _PARTS:
            self._add_up(lost, name)

    def _axes_of(self, node: fx.Node) -> list[np.ndarray]:
        """The axes of what a node makes, as classes; an empty axis for one without units."""
        key = self.graph.recording.parameters.get(node.name)
        if key is not None:
            shape = self.graph.shapes[key]
            return [self.graph.axes.get((key, dim), _NOTHING) for dim in range(len(shape))]
        value = self.graph.values.get(node.name)
        if value is None:
            return []
        return [_NOTHING if axis is None else self.graph.classes_of(axis) for axis in all_axes(value)]

    def _add_up(self, classes: set[int], name: str) -> None:
        for number in classes:
            self.summed.setdefault(number, name)

    def _note(self, axis: np.ndarray) -> None:
        if axis.size:
            self.axes.setdefault(axis.tobytes(), axis)

    def _blocks(self, record: OpRecord, node: fx.Node) -> list[tuple[np.ndarray, np.ndarray]]:
        """What enters and leaves each block of a grouped convolution; nothing for another layer.

        A unit of one block can't stand for a unit of another.
        """
        groups = 1 if record.kind == "linear" else record.read(node, "groups")
        if not isinstance(groups, int) or groups == 1:
            return []
        entering, leaving = self._axes_of(record.read(node, "input"))[1], self._axes_of(node)[1]
        parts = [np.split(axis, groups) if axis.size else [_NOTHING] * groups for axis in (entering, leaving)]
        return list(zip(*parts, strict=True))


def _are_units(blocks: list[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether each block is one unit that enters and leaves, as in a depthwise convolution: then all are alike."""
    return all(a.size and b.size and len(_union([[a, b]])) == 1 for a, b in blocks)


_NOTHING = np.full((0, 1), -1)


def _union(values: Sequence[Sequence[np.ndarray]] | Iterator[Sequence[np.ndarray]]) -> set[int]:
    """The classes on all axes."""
    classes: set[int] = set()
    for axes in values:
        for axis in axes:
            classes.update(np.unique(axis).tolist())
    classes.discard(-1)
    return classes


def _hindrance(graph: ChannelGraph, group: Group, passes: _Passes) -> str:
    """Why a group can't be merged; an empty text if it can."""
    own = np.zeros(graph.classes + 1, bool)
    own[group.ids] = True
    for axis in passes.axes.values():
        if (own[axis].any(axis=1) & ((axis >= 0).sum(axis=1) > 1)).any():
            return "channels are a product of several groups, such as heads and channels of a head"
    if graph.paths:
        return "the network's code takes other paths at other batch sizes"
    for statistic in graph.statistics:
        if any(own[axis].any() for over in statistic.over.values() for axis in over.values()):
            return f"{statistic.op} in {statistic.module or 'forward'} takes a statistic or a product over them"
    if not group.exact:
        return "an op takes a statistic over them"
    summed = next((passes.summed[number] for number in group.ids.tolist() if number in passes.summed), None)
    if summed is not None:
        return f"{summed} adds them up otherwise than by a layer's own weight"
    both = next((s.key for s in group.slices if (s.key, s.dim) in passes.consumed & passes.passed), None)
    return f"{both} consumes them in one call and is used otherwise in another" if both else ""


def _labels(group: Group, axes: dict[bytes, np.ndarray]) -> np.ndarray:
    """Numbers the kinds of units of a group: of one kind are those that stand equally often on each axis."""
    columns = [group.strata]
    for axis in axes.values():
        counts = np.bincount(axis[axis >= 0], minlength=int(group.ids.max()) + 1)[group.ids]
        if counts.any():
            columns.append(counts)
    _, labels = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return labels.ravel()
