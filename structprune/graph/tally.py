"""What many removals of one graph cost, fast: planning tries thousands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .axes import alive

if TYPE_CHECKING:
    from .dependency import DependencyGraph

Terms = list[tuple[int, list[np.ndarray], int]]  # constant, axes, divisor


@dataclass(frozen=True)
class Polynomial:
    """A cost as a sum of terms: a coefficient times, for each (axis, block), the axis's length in whole blocks."""

    coefficients: tuple[float, ...]
    axes: tuple[tuple[tuple[np.ndarray, int], ...], ...]


class Tally:
    """Counts what a network costs at given widths, where `kept(name, count)` says which units of a group stay.

    `others` names further costs. An axis is counted anew only when a group on it changes.
    """

    def __init__(
        self,
        graph: DependencyGraph,
        kept: Callable[[str, int], np.ndarray],
        others: Mapping[str, Polynomial] | None = None,
    ) -> None:
        self.graph, self.kept = graph, kept
        self.axes: list[np.ndarray] = []
        self.groups_on: list[tuple[str, ...]] = []
        self.known: dict[tuple, int] = {}
        self._index: dict[bytes, int] = {}
        self._owner = np.full(graph.classes + 1, -1)
        for number, group in enumerate(graph.groups):
            self._owner[group.ids] = number
        self.macs_terms, self.params_terms = self._compile(graph.macs_terms()), self._compile(graph.params_terms())
        self.others = {name: self._blocks(polynomial) for name, polynomial in (others or {}).items()}

    def _compile(self, terms: Terms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Constants, the axes of each term (padded with a last one of length 1) and divisors."""
        width = max((len(axes) for _, axes, _ in terms), default=0)
        places = np.full((len(terms), width), -1)
        for row, (_, axes, _) in enumerate(terms):
            places[row, : len(axes)] = [self._place(axis) for axis in axes]
        constants = np.array([constant for constant, _, _ in terms], dtype=np.int64)
        return constants, places, np.array([divisor for _, _, divisor in terms], dtype=np.int64)

    def _blocks(self, polynomial: Polynomial) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients, the axes of each term as `_compile` gives them, and the block of each."""
        rows = polynomial.axes
        width = max((len(row) for row in rows), default=0)
        places, blocks = np.full((len(rows), width), -1), np.ones((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            places[i, : len(row)] = [self._place(axis) for axis, _ in row]
            blocks[i, : len(row)] = [block for _, block in row]
        return np.array(polynomial.coefficients), places, blocks

    def _place(self, axis: np.ndarray) -> int:
        key = axis.tobytes() + str(axis.shape).encode()
        if key not in self._index:
            self._index[key] = len(self.axes)
            self.axes.append(axis)
            owners = np.unique(self._owner[axis])
            self.groups_on.append(tuple(self.graph.groups[i].name for i in owners[owners >= 0]))
        return self._index[key]

    def count(self, widths: Mapping[str, int]) -> dict[str, float]:
        """`{"macs": ..., "params": ...}` and the other costs, with `widths` units kept of each group."""
        lengths = np.ones(len(self.axes) + 1, dtype=np.int64)
        for place, names in enumerate(self.groups_on):
            key = (place, *(widths[name] for name in names))
            if key not in self.known:
                self.known[key] = self._length(place, widths)
            lengths[place] = self.known[key]
        result: dict[str, float] = {}
        for name, (constants, places, divisors) in (("macs", self.macs_terms), ("params", self.params_terms)):
            result[name] = int((constants * lengths[places].prod(axis=1) // divisors).sum())
        for name, (coefficients, places, blocks) in self.others.items():
            whole = -(-lengths[places] // blocks) * blocks
            result[name] = float((coefficients * whole.prod(axis=1)).sum())
        return result

    def _length(self, place: int, widths: Mapping[str, int]) -> int:
        removed = self.graph.removed({name: self.kept(name, widths[name]) for name in self.groups_on[place]})
        return int(alive(self.axes[place], removed).sum())
