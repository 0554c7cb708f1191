"""MACs and parameters of many removals of one graph, fast: planning tries thousands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from .units import alive

if TYPE_CHECKING:
    from .dependency import DependencyGraph

Terms = list[tuple[int, list[np.ndarray], int]]  # constant, axes, divisor


class Tally:
    """Counts what a network costs at given widths, where `kept(name, count)` says which units of a group stay.

    An axis is counted anew only when a group on it changes.
    """

    def __init__(self, graph: DependencyGraph, kept: Callable[[str, int], np.ndarray]) -> None:
        self.graph, self.kept = graph, kept
        self.axes: list[np.ndarray] = []
        self.groups_on: list[tuple[str, ...]] = []
        self.known: dict[tuple, int] = {}
        self._index: dict[bytes, int] = {}
        self._owner = np.full(graph.classes + 1, -1)
        for number, group in enumerate(graph.groups):
            self._owner[group.ids] = number
        self.macs_terms, self.params_terms = self._compile(graph.macs_terms()), self._compile(graph.params_terms())

    def _compile(self, terms: Terms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Constants, the axes of each term (padded with a last one of length 1) and divisors."""
        width = max((len(axes) for _, axes, _ in terms), default=0)
        places = np.full((len(terms), width), -1)
        for row, (_, axes, _) in enumerate(terms):
            places[row, : len(axes)] = [self._place(axis) for axis in axes]
        constants = np.array([constant for constant, _, _ in terms], dtype=np.int64)
        return constants, places, np.array([divisor for _, _, divisor in terms], dtype=np.int64)

    def _place(self, axis: np.ndarray) -> int:
        key = axis.tobytes() + str(axis.shape).encode()
        if key not in self._index:
            self._index[key] = len(self.axes)
            self.axes.append(axis)
            owners = np.unique(self._owner[axis])
            self.groups_on.append(tuple(self.graph.groups[i].name for i in owners[owners >= 0]))
        return self._index[key]

    def count(self, widths: Mapping[str, int]) -> dict[str, int]:
        """`{"macs": ..., "params": ...}` with `widths` units kept of each group."""
        lengths = np.ones(len(self.axes) + 1, dtype=np.int64)
        for place, names in enumerate(self.groups_on):
            key = (place, *(widths[name] for name in names))
            if key not in self.known:
                self.known[key] = self._length(place, widths)
            lengths[place] = self.known[key]
        result = {}
        for name, (constants, places, divisors) in (("macs", self.macs_terms), ("params", self.params_terms)):
            result[name] = int((constants * lengths[places].prod(axis=1) // divisors).sum())
        return result

    def _length(self, place: int, widths: Mapping[str, int]) -> int:
        removed = self.graph.removed({name: self.kept(name, widths[name]) for name in self.groups_on[place]})
        return int(alive(self.axes[place], removed).sum())
