"""Linear streams: channels that layers make, additions add up and layers read, with no other op in between.

MobileNets, EfficientNets and their kin hand such a stream from block to block. What is linear can be turned: any
invertible matrix on the channels, written into the layers that make them, is undone by those that read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx

from ..ops import op_name
from ..ops.record import record_of
from .channels import ChannelGraph
from .group import Group
from .layers import Layer, find_layers, sole_layers
from .recorded_calls import op_calls
from .values import all_axes

_PASSES = frozenset(("alias", "clone", "contiguous", "detach", "dropout"))


@dataclass(frozen=True)
class Stream:
    """Channels that may be turned.

    Attributes:
        name: The name of their group.
        makers: The layers that make them, each with the BatchNorm that alone reads it, if there is one.
        readers: The layers that read them.
    """

    name: str
    makers: tuple[Layer, ...]
    readers: tuple[Layer, ...]


def find_streams(graph: ChannelGraph) -> list[Stream]:
    """Finds the groups of a network that are linear streams.

    Args:
        graph: What `trace` gives.

    Returns:
        Those whose channels are made by convolutions without groups and linear layers, added to each other, and read by
        such layers alone. None where the code takes other ways at other batch sizes.
    """
    if graph.paths:
        return []
    finder = _Finder(graph)
    return [stream for group in graph.groups if (stream := finder.stream(group)) is not None]


class _Finder:
    def __init__(self, graph: ChannelGraph) -> None:
        self._graph = graph
        self._calls = op_calls(graph.recording)
        self._layers = {layer.place: layer for layer in sole_layers(graph.recording).values()}
        norms = find_layers(graph.recording)[1]
        calls = Counter(norm.mean for norm in norms) + Counter(norm.weight for norm in norms if norm.weight)
        self._norms = {n.place for n in norms if n.weight and n.bias and calls[n.mean] == calls[n.weight] == 1}
        self._axes = {node: self._axes_of(node) for node in graph.recording.calls}

    def stream(self, group: Group) -> Stream | None:
        """The group as a stream; None if it is not one."""
        if group.channels != group.units or len(np.unique(group.strata)) > 1:
            return None
        makers: list[Layer] = []
        readers: list[Layer] = []
        for place, node in enumerate(self._calls):
            entering = [self._carries(parent, group) for parent in node.all_input_nodes]
            leaving = self._carries(node, group)
            if leaving is False and not any(dim is not False for dim in entering):
                continue
            if not self._fits(place, node, group, makers, readers):
                return None
        return Stream(group.name, tuple(makers), tuple(readers)) if makers and readers else None

    def _fits(self, place: int, node: fx.Node, group: Group, makers: list[Layer], readers: list[Layer]) -> bool:
        """Whether a call does with the channels what may be turned; notes the layer that it is."""
        name, record = op_name(node.target), record_of(op_name(node.target))
        layer = self._layers.get(place)
        if layer is not None:
            if layer.transposed or (record.kind != "linear" and record.read(node, "groups") != 1):
                return False
            x = record.read(node, "input")
            at = [self._carries(value, group) for value in (x, node)]
            axis = [value.meta["val"].dim() - 1 if layer.axis == -1 else layer.axis for value in (x, node)]
            held = [self._holds((layer.weight, 1), group), self._holds((layer.weight, 0), group)]
            if any(dim is not False and dim != own for dim, own in zip(at, axis, strict=True)):
                return False
            if held != [dim is not False for dim in at]:
                return False
            readers += [layer] if held[0] else []
            makers += [layer] if held[1] else []
            return layer.norm is None or not held[1] or layer.norm.place in self._norms
        if record.kind == "batch norm":
            return any(maker.norm is not None and maker.norm.place == place for maker in makers)
        tensors = [value for value in node.args if isinstance(value, fx.Node)]
        if name not in _PASSES and not (name == "add" and len(tensors) == 2):
            return False
        dims = {self._carries(value, group) for value in (*tensors, node)}
        return len(dims) == 1 and dims.isdisjoint((None, False)) and len(tensors) == len(node.all_input_nodes)

    def _axes_of(self, node: Any) -> Sequence[np.ndarray | None]:
        value = self._graph.values.get(node.name)
        return [] if value is None else [None if a is None else self._graph.classes_of(a) for a in all_axes(value)]

    def _carries(self, node: Any, group: Group) -> int | bool | None:
        """The axis that is the group's channels in their order; False if none has any of them, None if it is not so."""
        key = self._graph.recording.parameters.get(node.name)
        if key is not None:
            return False  # what layers hold is looked at by itself
        axes = self._axes.get(node)
        if axes is None:
            axes = self._axes[node] = self._axes_of(node)
        dims = [at for at, axis in enumerate(axes) if axis is not None and np.isin(axis, group.ids).any()]
        if not dims:
            return False
        return dims[0] if len(dims) == 1 and _is(axes[dims[0]], group) else None

    def _holds(self, place: tuple[str, int], group: Group) -> bool:
        return _is(self._graph.axes.get(place), group)


def _is(axis: np.ndarray | None, group: Group) -> bool:
    """Whether an axis is a group's units, one at each position and in their order."""
    return axis is not None and axis.shape == (group.units, 1) and np.array_equal(axis[:, 0], group.ids)
