"""What a removal does: which classes go with the units that it names, and what stays of parameters and statistics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..plan_schema import KeptAxes, Statistic, in_blocks
from .axes import alive
from .channels import ChannelGraph, Place

Kept = Mapping[str, np.ndarray]  # for each group by name the indices of the units that stay


def mark_removed(graph: ChannelGraph, kept: Kept) -> np.ndarray:
    """Whether each class goes, with one False more for positions that carry none."""
    removed = np.zeros(graph.classes + 1, bool)
    for group in graph.groups:
        if group.name in kept:
            removed[np.delete(group.ids, kept[group.name])] = True
    return removed


def kept_positions(graph: ChannelGraph, kept: Kept) -> dict[str, KeptAxes]:
    """For each parameter or buffer that a removal slices: {axis: indices that stay}.

    For an axis of which each block of axis 0 keeps positions of its own, a list of indices for each block.
    """
    removed = mark_removed(graph, kept)
    result: dict[str, KeptAxes] = {}
    for (key, dim), axis in graph.axes.items():
        stays = alive(axis, removed)
        if not stays.all():
            size = graph.shapes[key][dim]
            rows = [np.flatnonzero(block).tolist() for block in stays.reshape(-1, size)]
            result.setdefault(key, {})[str(dim)] = rows[0] if len(axis) == size else rows
    return result


def slim_shapes(graph: ChannelGraph, kept: Kept) -> dict[str, tuple[int, ...]]:
    """The new shape of each parameter or buffer that a removal slices."""
    removed = mark_removed(graph, kept)
    result: dict[str, list[int]] = {}
    for (key, dim), axis in graph.axes.items():
        stays = int(alive(axis, removed).sum())
        if stays != len(axis):
            blocks = len(axis) // graph.shapes[key][dim]
            result.setdefault(key, list(graph.shapes[key]))[dim] = stays // blocks
    return {key: tuple(shape) for key, shape in result.items()}


def cut_statistics(graph: ChannelGraph, kept: Kept) -> list[Statistic]:
    """The calls that take a statistic over channels of which some go: which it is, and what each axis keeps."""
    removed = mark_removed(graph, kept)
    result: dict[tuple[str, int], Statistic] = {}  # an einsum may contract several letters
    for s in graph.statistics:
        cut: dict[str, dict[str, list[int]]] = {}
        for place, over in s.over.items():
            for d, axis in over.items():
                stays = alive(axis, removed)
                if not stays.all():
                    cut.setdefault(str(place), {})[str(d)] = np.flatnonzero(stays).tolist()
        if cut:
            entry: Statistic = {"call": s.call, "op": s.op, "module": s.module, "reduces": s.reduces, "keep": {}}
            keep = result.setdefault((s.op, s.call), entry)["keep"]
            for where, positions in cut.items():
                keep.setdefault(where, {}).update(positions)
    return list(result.values())


def removed_by(graph: ChannelGraph, keep: Mapping[str, KeptAxes]) -> np.ndarray | None:
    """Which classes the removal takes away that keeps these positions of parameters and buffers.

    A position goes with any of its classes, so what goes is every class of a removed position that stands on no kept
    one.

    Args:
        graph: of the dense network.
        keep: as `kept_positions` returns it.

    Returns:
        Whether each class goes, with one False more for positions that carry none; None where no removal of this graph
        keeps exactly these positions.
    """
    gone, stays = np.zeros(graph.classes + 1, bool), np.zeros(graph.classes + 1, bool)
    intact: dict[Place, np.ndarray] = {}
    for key, kept_axes in keep.items():
        for dim, kept in kept_axes.items():
            axis = graph.axes.get((key, int(dim)))
            if axis is None:
                return None
            intact[key, int(dim)] = chosen = np.zeros(len(axis), bool)
            size = graph.shapes[key][int(dim)]
            for block, row in enumerate(kept if in_blocks(kept) else [kept]):
                chosen[np.asarray(row) + block * size] = True
    for place, axis in graph.axes.items():
        chosen = intact.get(place, np.ones(len(axis), bool))
        gone[axis[~chosen]] = True
        stays[axis[chosen]] = True
    gone &= ~stays
    gone[-1] = False
    for place, axis in graph.axes.items():
        if not np.array_equal(alive(axis, gone), intact.get(place, np.ones(len(axis), bool))):
            return None
    return gone
