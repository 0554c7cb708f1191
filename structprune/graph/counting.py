"""What removals of a graph's channels cost and save: multiply-adds, parameters and other sums of products of widths.

`count_macs` and `count_params` answer for one removal; `WidthCounter` for many, fast: planning tries thousands.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .axes import alive
from .channels import ChannelGraph, Term
from .group import Group
from .removal import Kept, mark_removed
from .values import all_axes


def count_macs(graph: ChannelGraph, kept: Kept | None = None) -> int:
    """Multiply-adds of one forward pass on the example inputs, after a removal.

    One multiply-add is one MAC; convolutions, linear layers, matrix products and attention count; normalisation,
    pooling, activations and biases do not.
    """
    return sum(_counts(graph, graph.macs_terms, kept))


def count_macs_by_operator(graph: ChannelGraph, kept: Kept | None = None) -> dict[str, int]:
    """The same, for each operator under the name that fvcore gives it."""
    counts: Counter[str] = Counter()
    for term, macs in zip(graph.macs_terms, _counts(graph, graph.macs_terms, kept), strict=True):
        counts[term.op] += macs
    return dict(counts)


def count_params(graph: ChannelGraph, kept: Kept | None = None) -> int:
    """The number of trainable or frozen parameters (buffers do not count), after a removal."""
    return sum(_counts(graph, graph.params_terms, kept))


def count_group(graph: ChannelGraph, group: Group) -> dict[str, int]:
    """Counts what the model loses when all units of a group go.

    Args:
        graph: The dependency graph of the dense network.
        group: One of its groups.

    Returns:
        `params`, and `macs` of one sample.
    """
    none = {group.name: np.arange(0)}
    return {
        "params": count_params(graph) - count_params(graph, none),
        "macs": count_macs(graph) - count_macs(graph, none),
    }


def _counts(graph: ChannelGraph, terms: Sequence[Term], kept: Kept | None) -> list[int]:
    """What each term comes to after a removal."""
    removed, lengths, result = mark_removed(graph, kept or {}), {}, []
    for term in terms:
        for axis in term.axes:
            if id(axis) not in lengths:
                lengths[id(axis)] = int(alive(axis, removed).sum())
        result.append(term.constant * math.prod(lengths[id(axis)] for axis in term.axes) // term.divisor)
    return result


def moving_axes(graph: ChannelGraph) -> list[np.ndarray]:
    """The classes on every axis of every tensor of a forward pass that something could go of, each axis once."""
    axes: dict[bytes, np.ndarray] = {}
    for value in graph.values.values():
        for axis in all_axes(value):
            if axis is not None and graph.removable(axis):
                classes = graph.classes_of(axis)
                axes.setdefault(classes.tobytes(), classes)
    return list(axes.values())


@dataclass(frozen=True)
class Polynomial:
    """A cost as a sum of terms: a coefficient times, for each (axis, block), the axis's length in whole blocks."""

    coefficients: tuple[float, ...]
    axes: tuple[tuple[tuple[np.ndarray, int], ...], ...]


class WidthCounter:
    """Counts what a network costs at given widths, where `kept(name, width)` says which units of a group stay.

    `others` names further costs. An axis is counted anew only when a group on it changes.
    """

    def __init__(
        self,
        graph: ChannelGraph,
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
        self.macs_terms, self.params_terms = self._compile(graph.macs_terms), self._compile(graph.params_terms)
        self.others = {name: self._blocks(polynomial) for name, polynomial in (others or {}).items()}

    def _compile(self, terms: Sequence[Term]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Constants, the axes of each term (padded with a last one of length 1) and divisors."""
        columns = max((len(term.axes) for term in terms), default=0)
        places = np.full((len(terms), columns), -1)
        for row, term in enumerate(terms):
            places[row, : len(term.axes)] = [self._place(axis) for axis in term.axes]
        constants = np.array([term.constant for term in terms], dtype=np.int64)
        return constants, places, np.array([term.divisor for term in terms], dtype=np.int64)

    def _blocks(self, polynomial: Polynomial) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients, the axes of each term as `_compile` gives them, and the block of each."""
        rows = polynomial.axes
        columns = max((len(row) for row in rows), default=0)
        places, blocks = np.full((len(rows), columns), -1), np.ones((len(rows), columns), dtype=np.int64)
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
        """Counts the costs at some widths.

        Args:
            widths: how many units each group keeps

        Returns:
            `{'macs': ..., 'params': ...}` and the other costs that the counter was made with.
        """
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
        removed = mark_removed(self.graph, {name: self.kept(name, widths[name]) for name in self.groups_on[place]})
        return int(alive(self.axes[place], removed).sum())
