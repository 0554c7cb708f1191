"""What the blocks of a network hand on, and which positions of it a removal leaves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, fx

from ..ops import op_name
from .axes import alive
from .channels import ChannelGraph
from .layers import find_layers
from .recorded_calls import CallSite, op_calls
from .values import Stacked, Value

MOST = 40  # blocks; a network that has more at one level of its modules is taken apart a level higher


@dataclass(frozen=True)
class BlockResult:
    """What a block hands on.

    Attributes:
        site: the call that makes it.
        module: the module whose call that is.
        shape: what a removal leaves of it.
        kept: for each axis that is cut, the positions that stay.
    """

    site: CallSite
    module: str
    shape: tuple[int, ...]
    kept: dict[int, np.ndarray]


def block_results(graph: ChannelGraph, removed: np.ndarray, others: Collection[str] = ()) -> list[BlockResult]:
    """Finds what the blocks of a network hand on, in the order of its forward pass, without the network's outputs.

    Blocks are the modules of the deepest level of names (`layer1.0`, `layer1.0.conv1`, …) that has no more than `MOST`
    with layers in them: those that are called once and hand on one tensor. Of several between which no layer lies, the
    last stands for all.

    Args:
        graph: of the network.
        removed: whether each class goes, as `removed_by` returns it.
        others: weights of layers that make something else of their channels by now: what carries these is left out.

    Returns:
        The results of which it is known what stays.
    """
    calls = op_calls(graph.recording)
    weighted = {layer.place for layer in find_layers(graph.recording)[0]}
    levels = _levels(calls, weighted)
    fitting = [nodes for nodes in levels if len(nodes) <= MOST]
    sites = _sites(calls)
    changed = np.zeros(graph.classes + 1, bool)
    for key in others:
        if (key, 0) in graph.axes:
            changed[graph.axes[key, 0]] = True
    changed[-1] = False
    results = []
    for node in fitting[-1] if fitting else _spread(levels[0]):
        kept = _kept(graph, node, removed, changed)
        if kept is None or any(user.op == "output" for user in node.users):
            continue
        shape = tuple(len(kept[dim]) if dim in kept else size for dim, size in enumerate(node.meta["val"].shape))
        results.append(BlockResult(sites[node], node.meta["module"], shape, kept))
    return results


def _sites(calls: Sequence[fx.Node]) -> dict[fx.Node, CallSite]:
    sites: dict[fx.Node, CallSite] = {}
    counts: Counter[str] = Counter()
    for node in calls:
        name = op_name(node.target)
        sites[node], counts[name] = (name, counts[name]), counts[name] + 1
    return sites


def _levels(calls: Sequence[fx.Node], weighted: set[int]) -> list[list[fx.Node]]:
    """For each level of module names the values that its modules hand on."""
    places = {node: place for place, node in enumerate(calls)}
    paths = [node.meta["module"].split(".") if node.meta["module"] else [] for node in calls]
    deepest = max(map(len, paths), default=0)
    levels = []
    for depth in range(1, deepest + 1):
        members: dict[str, list[fx.Node]] = defaultdict(list)
        for node, path in zip(calls, paths, strict=True):
            if path:
                members[".".join(path[:depth])].append(node)
        results = [result for nodes in members.values() if (result := _result(nodes)) is not None]
        levels.append(_last_before_layers(sorted(results, key=places.__getitem__), places, weighted))
    return levels or [[]]


def _result(nodes: list[fx.Node]) -> fx.Node | None:
    """The one tensor that the calls of a module hand on; None where it hands on several, or something else."""
    own = set(nodes)
    handed = [node for node in nodes if any(user not in own for user in node.users)]
    value = handed[0].meta.get("val") if len(handed) == 1 else None
    if not (isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1):
        return None
    return handed[0]


def _last_before_layers(results: list[fx.Node], places: dict[fx.Node, int], weighted: set[int]) -> list[fx.Node]:
    """Without those that have no layer between them and the one before: the last stands for all."""
    last: dict[int, fx.Node] = {}
    for node in results:
        layers = sum(place <= places[node] for place in weighted)
        if layers:
            last[layers] = node
    return list(last.values())


def _spread(nodes: list[fx.Node]) -> list[fx.Node]:
    """As many of them as there may be, evenly."""
    chosen = np.unique(np.linspace(0, len(nodes) - 1, MOST).round().astype(int))
    return [nodes[i] for i in chosen]


def _kept(graph: ChannelGraph, node: fx.Node, removed: np.ndarray, changed: np.ndarray) -> dict[int, np.ndarray] | None:
    """Which positions of what a call makes stay; None where that can't be told, and for what carries `changed`."""
    value = graph.values.get(node.name)
    if not isinstance(value, Value) or isinstance(value, Stacked):
        return None
    kept = {}
    for dim, axis in enumerate(value.axes):
        if axis is not None:
            classes = graph.classes_of(axis)
            if changed[classes].any():
                return None
            stays = alive(classes, removed)
            if not stays.all():
                kept[dim] = np.flatnonzero(stays)
    return kept
