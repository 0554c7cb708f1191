"""The channel algebra: units, the axes that carry them, and which units stand or fall together.

A *unit* is the smallest thing that can be removed. An *axis* of a tensor is a sequence of positions, and a
position carries a set of units: it is removed when any of them is. `None` stands for an axis that nothing
can be removed from; otherwise an axis is an integer array of shape (positions, k), -1 padding a shorter set.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Axis: TypeAlias = "np.ndarray | None"


class Units:
    """Hands out unit ids and records which are tied together and which are frozen (and by which cause)."""

    def __init__(self) -> None:
        self.count = 0
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []
        self._frozen: list[tuple[np.ndarray, int]] = []

    def axis(self, positions: int) -> np.ndarray:
        """A new axis with one new unit at each position."""
        start, self.count = self.count, self.count + positions
        return np.arange(start, self.count).reshape(-1, 1)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Position i of `a` and position i of `b` are removed together. Shapes must be equal."""
        if a is not b and not np.array_equal(a, b):
            self._ties.append((a.ravel(), b.ravel()))

    def freeze(self, axis: np.ndarray, cause: int) -> None:
        """No position of `axis` may be removed."""
        self._frozen.append((axis[axis >= 0], cause))

    def classes(self) -> tuple[int, np.ndarray]:
        """The number of classes of tied units, and the class of each unit."""
        if not self._ties:
            return self.count, np.arange(self.count)
        left = np.concatenate([a for a, _ in self._ties])
        right = np.concatenate([b for _, b in self._ties])
        links = coo_array((np.ones(len(left), bool), (left, right)), shape=(self.count, self.count))
        count, labels = connected_components(links, directed=False)
        return int(count), labels

    def frozen(self, labels: np.ndarray) -> tuple[np.ndarray, list[tuple[np.ndarray, int]]]:
        """Whether each class is frozen, and (classes, cause) for each freeze recorded."""
        frozen = np.zeros(int(labels.max(initial=-1)) + 1, bool)
        causes = [(np.unique(labels[units]), cause) for units, cause in self._frozen]
        for classes, _ in causes:
            frozen[classes] = True
        return frozen, causes


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
    width = max(axis.shape[1] for axis in axes if axis is not None)
    parts = []
    for axis, size in zip(axes, sizes, strict=True):
        part = np.full((size, width), -1)
        if axis is not None:
            part[:, : axis.shape[1]] = axis
        parts.append(part)
    return np.concatenate(parts)


def alive(axis: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Which positions stay, given whether each unit is removed. `removed` has one entry more than there are
    units, False, which is what the padding -1 looks up."""
    return ~removed[axis].any(axis=1)
