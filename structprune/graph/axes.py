"""The axes of tensors, as arrays of the units that they carry.

A *unit* is the smallest thing that can be removed. An *axis* of a tensor is a sequence of positions, and a
position carries a set of units: it is removed when any of them is. `None` stands for an axis that nothing
can be removed from; otherwise an axis is an integer array of shape (positions, k), -1 padding a shorter set.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Axis: TypeAlias = "np.ndarray | None"


def read_only(array: np.ndarray) -> np.ndarray:
    """The same array, to which nobody may write any more: what a graph holds is shared."""
    array.flags.writeable = False
    return array


def aligned(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`b` with its columns in the order in which they vary as those of `a` do, where that can be told."""
    if a.shape[1] < 2:
        return b
    theirs = [np.unique(column, return_inverse=True)[1].tobytes() for column in b.T]
    order = []
    for column in a.T:
        pattern = np.unique(column, return_inverse=True)[1].tobytes()
        match = next((i for i, other in enumerate(theirs) if other == pattern and i not in order), None)
        if match is None:
            return b
        order.append(match)
    return b[:, order]


def alike(axis: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The positions of an axis apart by the columns in which they carry something: masks of both."""
    carries = axis >= 0
    if carries.all():  # np.unique takes its time
        return [(np.ones(len(axis), bool), np.ones(axis.shape[1], bool))] if len(axis) else []
    patterns, which = np.unique(carries, axis=0, return_inverse=True)
    return [(which.ravel() == i, pattern) for i, pattern in enumerate(patterns)]


def compress(axis: np.ndarray) -> np.ndarray:
    """The same axis without columns that carry nothing or repeat another; one column at least."""
    if axis.shape[1] == 1:
        return axis
    columns = {column.tobytes(): column for column in axis.T if (column >= 0).any()}
    return np.stack(list(columns.values()) or [axis[:, 0]], axis=1)


def merge(axes: list[Axis], sizes: list[int]) -> Axis:
    """The axis of a row-major flattening: each position carries the units of all its factors' positions."""
    if all(axis is None for axis in axes):
        return None
    columns = []
    for i, axis in enumerate(axes):
        if axis is not None:
            repeated = np.repeat(axis, int(np.prod(sizes[i + 1 :], dtype=int)), axis=0)
            columns.append(np.tile(repeated, (int(np.prod(sizes[:i], dtype=int)), 1)))
    return np.concatenate(columns, axis=1)


def concatenate(axes: list[Axis], sizes: list[int]) -> Axis:
    """The axis of tensors laid end to end; a part that cannot be pruned carries empty sets."""
    if all(axis is None for axis in axes):
        return None
    columns = max(axis.shape[1] for axis in axes if axis is not None)
    parts = []
    for axis, size in zip(axes, sizes, strict=True):
        part = np.full((size, columns), -1)
        if axis is not None:
            part[:, : axis.shape[1]] = axis
        parts.append(part)
    return np.concatenate(parts)


def alive(axis: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Which positions stay, given whether each class is removed. `removed` has one entry more than there are
    classes, False, which is what the padding -1 looks up."""
    return ~removed[axis].any(axis=1)
