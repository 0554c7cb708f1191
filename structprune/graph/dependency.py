"""What can be removed from a model, and what each removal costs and saves."""

from __future__ import annotations

import copy
import functools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from ..ops import Captured, Inputs
from .attributes import follow_attributes, new_attributes
from .axes import Axis, alive
from .barriers import Barrier, barriers, reasons, whole_layers
from .families import families
from .flow import Attribute, Flow, Value, all_axes
from .group import Group, Slice
from .program import program
from .tally import Terms
from .trials import Sizes, explore
from .units import Resolution


class DependencyGraph:
    """What can be removed from a model, and what each removal costs and saves.

    `groups` and `barriers` are lists; `model` is the traced model, whose weights criteria read; `nodes` counts the
    ops of one forward pass; `notes` says what a user should know of how it was traced. A *removal* is a mapping from a
    group's name to the indices of the units that it keeps; groups not named stay whole.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, flow: Flow, values: dict[str, Value], captured: Captured, form: str
    ):
        self.model, self.inputs, self.captured, self.form = model, inputs, captured, form
        self.nodes = len(captured.calls)
        self.values: dict[str, Any] = {}
        self.paths: list[DependencyGraph] = []
        self.notes: list[str] = []
        self._flow = flow
        if flow.module_form:
            follow_attributes(flow, model, values)
        self._resolved = flow.units.resolve()
        self._known: dict[int, np.ndarray] = {}
        self._kept_alive: list[np.ndarray] = []
        self._axes: dict[tuple[str, int], np.ndarray] = {}
        self._sizes = {key: value.shape for key, value in values.items()}
        for key, value in values.items():
            for dim, axis in enumerate(value.axes):
                if axis is not None:
                    self._axes[key, dim] = self.classes_of(axis)
        for (key, dim), axis in flow.blocked.items():
            self._axes[key, dim] = self.classes_of(axis)
        self._cost_axes = [[self.classes_of(axis) for axis in cost.axes] for cost in flow.costs]
        self._families = families(flow, self._resolved, self.classes_of)
        self.groups: list[Group] = self._make_groups()
        self._grouped = self._nothing()
        for group in self.groups:
            self._grouped[group.ids] = True

    def classes_of(self, axis: np.ndarray) -> np.ndarray:
        """The classes of tied units on each position of an axis, shape (positions, k)."""
        if id(axis) not in self._known:
            self._known[id(axis)] = self._resolved.of(axis)
            self._kept_alive.append(axis)
        return self._known[id(axis)]

    @property
    def classes(self) -> int:
        """The number of classes of tied units."""
        return self._resolved.classes

    def removable(self, axis: np.ndarray) -> bool:
        """Whether any position of an axis can go."""
        return bool(self._grouped[self.classes_of(axis)].any())

    # --- groups -------------------------------------------------------------------------------------------

    def _make_groups(self) -> list[Group]:
        slices = self._slices()
        depths: dict[tuple[str, int], int] = {}
        for produced in self._flow.produced:
            depths.setdefault((produced.key, produced.dim), produced.depth)
        inexact = self._touched(
            self._flow.changing
            + [axis for s in self._flow.statistics if not s.exact for over in s.over.values() for axis in over.values()]
        )
        in_training = self._touched(self._flow.statistics_in_training)
        groups = []
        local = np.full(self._resolved.classes + 1, -1)
        wanted = [(self.classes_of(axis), least) for axis, least in self._flow.floors]
        wanted += [
            (self.classes_of(a), 1) for s in self._flow.statistics for over in s.over.values() for a in over.values()
        ]
        for family, own in zip(self._families, slices, strict=True):
            local[:] = -1
            local[family.ids] = np.arange(len(family.ids))
            floors = [(local[axis], least) for axis, least in wanted]
            first = (family.leader.key, family.leader.dim)
            own.sort(key=lambda s: -1 if (s.key, s.dim) == first else depths.get((s.key, s.dim), 1 << 60))
            groups.append(
                Group(
                    name=family.name,
                    units=len(family.ids),
                    channels=len(family.leader.axis),
                    exact=not inexact[family.ids].any(),
                    exact_in_training=not (inexact | in_training)[family.ids].any(),
                    slices=tuple(own),
                    floors=tuple(f for f in floors if (f[0] >= 0).any()),
                    ids=family.ids,
                    strata=family.strata,
                    rates=family.rates,
                    _graph=self,
                )
            )
        return groups

    def _touched(self, axes: list[np.ndarray]) -> np.ndarray:
        """Which classes stand on any of `axes`."""
        touched = self._nothing()
        for axis in axes:
            touched[self.classes_of(axis)] = True
        touched[-1] = False
        return touched

    def _slices(self) -> list[list[Slice]]:
        group_of = np.full(self._resolved.classes + 1, -1)
        local = np.full(self._resolved.classes + 1, -1)
        for number, family in enumerate(self._families):
            group_of[family.ids] = number
            local[family.ids] = np.arange(len(family.ids))
        slices: list[list[Slice]] = [[] for _ in self._families]
        for (key, dim), axis in self._axes.items():
            owners = group_of[axis]
            for number in sorted(set(owners[owners >= 0].tolist())):
                index = np.where(owners == number, local[axis], -1)
                index = index[:, (index >= 0).any(axis=0)]
                slices[number].append(Slice(key, dim, self._flow.roles.get((key, dim), "other"), index))
        return slices

    @functools.cached_property
    def barriers(self) -> list[Barrier]:
        """What keeps channels, and why."""
        return barriers(self)

    @functools.cached_property
    def reasons(self) -> dict[tuple[str, int], str]:
        """Why positions stay, for each parameter or buffer and axis of which some do, whatever is planned."""
        return reasons(self)

    @functools.cached_property
    def whole_layers(self) -> dict[str, str]:
        """The layers all of whose channels stay, whatever is planned, by their paths, and why."""
        return whole_layers(self)

    @property
    def flow(self) -> Flow:
        """What the rules wrote down."""
        return self._flow

    @property
    def resolved(self) -> Resolution:
        """The classes of units, and which of them stay."""
        return self._resolved

    @property
    def grouped(self) -> np.ndarray:
        """Whether each class is in a group, with one False more for positions that carry no unit."""
        return self._grouped

    @property
    def parameter_axes(self) -> dict[tuple[str, int], np.ndarray]:
        """The classes on each axis of each parameter and buffer."""
        return self._axes

    def restrict(self, name: str, widths: Iterable[int]) -> None:
        """Lets a group keep only so many units, of those that it could keep before."""
        place = next(i for i, group in enumerate(self.groups) if group.name == name)
        group = self.groups[place]
        allowed = frozenset(n for n in (*widths, group.units) if group.allows(n))
        self.groups[place] = replace(group, allowed=allowed)

    def group(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    # --- what a removal does ------------------------------------------------------------------------------

    def _nothing(self) -> np.ndarray:
        return np.zeros(self._resolved.classes + 1, bool)

    def removed(self, kept: dict[str, np.ndarray]) -> np.ndarray:
        """Whether each class of tied units goes, with one False more for positions that carry no unit."""
        removed = self._nothing()
        for group in self.groups:
            if group.name in kept:
                removed[np.delete(group.ids, kept[group.name])] = True
        return removed

    def macs(self, kept: dict[str, np.ndarray] | None = None) -> int:
        """Multiply-adds of one forward pass on the example inputs, after a removal.

        One multiply-add is one MAC; convolutions, linear layers, matrix products and attention count;
        normalisation, pooling, activations and biases do not.
        """
        return sum(self._counts(self.macs_terms(), kept))

    def macs_by_operator(self, kept: dict[str, np.ndarray] | None = None) -> dict[str, int]:
        """The same, for each operator under the name that fvcore gives it."""
        counts: Counter[str] = Counter()
        for cost, macs in zip(self._flow.costs, self._counts(self.macs_terms(), kept), strict=True):
            counts[cost.op] += macs
        return dict(counts)

    def params(self, kept: dict[str, np.ndarray] | None = None) -> int:
        """The number of trainable or frozen parameters (buffers do not count), after a removal."""
        return sum(self._counts(self.params_terms(), kept))

    def keep(self, kept: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
        """For each parameter or buffer that a removal slices: {axis: indices that stay}.

        For an axis of which each block of axis 0 keeps positions of its own, a list of indices for each block.
        """
        removed = self.removed(kept)
        result: dict[str, dict[str, Any]] = {}
        for (key, dim), axis in self._axes.items():
            stays = alive(axis, removed)
            if not stays.all():
                size = self._sizes[key][dim]
                rows = [np.flatnonzero(block).tolist() for block in stays.reshape(-1, size)]
                result.setdefault(key, {})[str(dim)] = rows[0] if len(axis) == size else rows
        return result

    def shapes(self, kept: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        """The new shape of each parameter or buffer that a removal slices."""
        removed = self.removed(kept)
        result: dict[str, list[int]] = {}
        for (key, dim), axis in self._axes.items():
            stays = int(alive(axis, removed).sum())
            if stays != len(axis):
                blocks = len(axis) // self._sizes[key][dim]
                result.setdefault(key, list(self._sizes[key]))[dim] = stays // blocks
        return {key: tuple(shape) for key, shape in result.items()}

    def attributes(self, kept: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
        """For each module whose numbers must follow its weights: {attribute: new value}."""
        return new_attributes(self, self.removed(kept)) if self.form == "module" else {}

    def statistics(self, kept: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """The calls that take a statistic over channels of which some go: which it is, and what each axis keeps."""
        removed = self.removed(kept)
        result: dict[tuple[str, int], dict[str, Any]] = {}  # an einsum may contract several letters
        for s in self._flow.statistics:
            cut: dict[str, dict[str, list[int]]] = {}
            for place, over in s.over.items():
                for d, axis in over.items():
                    stays = alive(self.classes_of(axis), removed)
                    if not stays.all():
                        cut.setdefault(str(place), {})[str(d)] = np.flatnonzero(stays).tolist()
            if cut:
                entry = {"call": s.call, "op": s.op, "module": s.module, "reduces": s.reduces, "keep": {}}
                keep = result.setdefault((s.op, s.call), entry)["keep"]
                for where, kept_there in cut.items():
                    keep.setdefault(where, {}).update(kept_there)
        return list(result.values())

    def along(self, path: Captured, values: dict[str, Any]) -> DependencyGraph:
        """The same graph on another of the ways that the model's code goes, to write that one's program."""
        graph = copy.copy(self)
        graph.captured, graph.inputs, graph.values = path, path.inputs, values
        return graph

    @functools.cached_property
    def sizes(self) -> Sizes:
        """Which axes of the inputs may have other sizes, by recordings at such."""
        return explore(self)

    def program(self, kept: dict[str, np.ndarray]) -> dict[str, Any] | None:
        """The slim network's calls, if that is the form it will have (see `graph.program`)."""
        return program(self, self.removed(kept)) if self.form == "graph" else None

    def blocked(self, key: str | None, dim: int) -> np.ndarray | None:
        """The axis of all blocks of a grouped convolution's weight, where each keeps positions of its own."""
        return None if key is None else self._flow.blocked.get((key, dim))

    @property
    def attribute_list(self) -> list[Attribute]:
        return self._flow.attributes

    @property
    def expressions(self) -> list[tuple[Any, Axis]]:
        return self._flow.expressions

    def all_axes(self) -> list[np.ndarray]:
        """The classes on every axis of every tensor of a forward pass that something could go of, each axis once."""
        found: dict[bytes, np.ndarray] = {}
        for value in self.values.values():
            for axis in all_axes(value):
                if axis is not None and self.removable(axis):
                    classes = self.classes_of(axis)
                    found.setdefault(classes.tobytes(), classes)
        return list(found.values())

    def length(self, axis: np.ndarray, removed: np.ndarray) -> int:
        """How many positions of an axis stay."""
        return int(alive(self.classes_of(axis), removed).sum())

    def _counts(self, terms: Terms, kept: dict[str, np.ndarray] | None) -> list[int]:
        """What each term comes to after a removal."""
        removed, lengths, result = self.removed(kept or {}), {}, []
        for constant, axes, divisor in terms:
            for axis in axes:
                if id(axis) not in lengths:
                    lengths[id(axis)] = int(alive(axis, removed).sum())
            result.append(constant * math.prod(lengths[id(axis)] for axis in axes) // divisor)
        return result

    def macs_terms(self) -> Terms:
        """The terms that MACs are a sum of: constant × lengths of axes / divisor."""
        pairs = zip(self._flow.costs, self._cost_axes, strict=True)
        return [(cost.constant, axes, cost.divisor) for cost, axes in pairs]

    def params_terms(self) -> Terms:
        """The same for the number of parameters."""
        terms: Terms = []
        for key, _ in self.model.named_parameters():
            constant, axes, divisor = 1, [], 1
            for dim, size in enumerate(self._sizes[key]):
                axis = self._axes.get((key, dim))
                if axis is None:
                    constant *= size
                else:
                    axes.append(axis)
                    divisor *= len(axis) // size if size else 1
            terms.append((constant, axes, divisor))
        return terms
