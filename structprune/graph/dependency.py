"""Groups of coupled channels and barriers, and what each removal costs and saves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from ..modules import tensors
from .capture import Inputs
from .flow import FIXED, Cause, Flow, Produced, Value
from .units import alive


@dataclass(frozen=True)
class Slice:
    """One axis of one parameter or buffer that a group controls.

    `index` has shape (positions, k): the group's units on each position, -1 where a position (also) carries
    none of this group. `role` is filter, passed, consumer, norm, bias or other.
    """

    key: str
    dim: int
    role: str
    index: np.ndarray


@dataclass(frozen=True)
class Group:
    """Channels that are ranked together: a layer's filters, with everything that is coupled to them.

    `name` is the leading layer: of the layers that make these channels, the nearest to the input (so a
    projection shortcut leads its stage). `units` counts what can be removed one by one, `channels` the
    leading layer's width. `slices` starts with the leading layer's filters, then those of the other layers
    that make the channels. `exact` says that removing equals masking with zero. `params` and `macs` are what
    the model loses when all the units go.
    """

    name: str
    units: int
    channels: int
    exact: bool
    slices: tuple[Slice, ...]
    ids: np.ndarray = field(repr=False)
    params: int = 0
    macs: int = 0

    @property
    def leading(self) -> Slice:
        return self.slices[0]

    def channels_of(self, kept: int) -> int:
        """The leading layer's width when `kept` units are kept (its fixed channels always stay)."""
        return self.channels - (self.units - kept) * self.channels_per_unit

    @property
    def channels_per_unit(self) -> int:
        return int((self.leading.index >= 0).any(axis=1).sum()) // self.units


@dataclass(frozen=True)
class Barrier:
    """A node that keeps the channels which enter it, and why. `channels` counts those kept because of it."""

    op: str
    node: str
    module: str
    reason: str
    channels: int


class DependencyGraph:
    """What can be removed from a model, and what each removal costs and saves.

    `groups` and `barriers` are lists; `model` is the traced model, whose weights criteria read. A *removal*
    is a mapping from a group's name to the indices of the units that it keeps; groups not named stay whole.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, flow: Flow, values: dict[str, Value]):
        self.model, self.inputs = model, inputs
        self._costs, self._attributes = flow.costs, flow.attributes
        count, self._labels = flow.units.classes()
        self._classes = count
        frozen, freezes = flow.units.frozen(self._labels)
        frozen = np.concatenate([frozen, np.zeros(count - len(frozen), bool)])
        self._axes: dict[tuple[str, int], np.ndarray] = {}
        self._shapes = {key: value.shape for key, value in values.items()}
        for key, value in values.items():
            for dim, axis in enumerate(value.axes):
                if axis is not None:
                    self._axes[key, dim] = self.classes_of(axis)
        self._cost_axes = [[self.classes_of(axis) for axis in cost.axes] for cost in flow.costs]
        self._families: list[list[Produced]] = []  # layers whose channels are coupled, removable or not
        self.groups: list[Group] = self._find_groups(flow, frozen)
        self.barriers = self._report_barriers(freezes, flow.causes)

    def classes_of(self, axis: np.ndarray) -> np.ndarray:
        return np.where(axis >= 0, self._labels[axis], -1)

    # --- groups -------------------------------------------------------------------------------------------

    def _find_groups(self, flow: Flow, frozen: np.ndarray) -> list[Group]:
        parent = list(range(len(flow.produced)))
        owner: dict[int, int] = {}

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for i, produced in enumerate(flow.produced):
            for label in np.unique(self.classes_of(produced.axis)):
                if label >= 0:
                    parent[root(i)] = root(owner.setdefault(int(label), i))
        families: dict[int, list[Produced]] = {}
        for i, produced in enumerate(flow.produced):
            families.setdefault(root(i), []).append(produced)
        self._families = list(families.values())

        of_class: dict[int, int] = {}
        kept: list[tuple[Produced, np.ndarray]] = []
        for family in families.values():
            leader = min(family, key=lambda p: p.depth)
            ordered = [self.classes_of(p.axis).ravel() for p in [leader, *family]]
            labels = np.concatenate(ordered)
            labels = labels[(labels >= 0) & ~frozen[labels]]
            _, first = np.unique(labels, return_index=True)
            ids = labels[np.sort(first)]  # in the order of the leading layer's filters
            if len(ids):
                of_class.update(dict.fromkeys(ids.tolist(), len(kept)))
                kept.append((leader, ids))
        slices = self._slices(flow, of_class, kept)
        depths: dict[tuple[str, int], int] = {}
        for produced in flow.produced:
            depths.setdefault((produced.key, produced.dim), produced.depth)
        total_macs, total_params = self._sum_macs(self._nothing()), self._sum_params(self._nothing())
        groups = []
        for number, (leader, ids) in enumerate(kept):
            removed = self._nothing()
            removed[ids] = True
            own = slices[number]
            own.sort(key=lambda s: depths.get((s.key, s.dim), len(depths) + max(depths.values())))
            groups.append(
                Group(
                    name=_layer_name(leader.key),
                    units=len(ids),
                    channels=len(leader.axis),
                    exact=True,  # every op that takes a statistic over channels is a barrier
                    slices=tuple(own),
                    ids=ids,
                    params=total_params - self._sum_params(removed),
                    macs=total_macs - self._sum_macs(removed),
                )
            )
        return groups

    def _slices(
        self, flow: Flow, of_class: dict[int, int], kept: list[tuple[Produced, np.ndarray]]
    ) -> list[list[Slice]]:
        group_of = np.full(self._classes + 1, -1)
        local = np.full(self._classes + 1, -1)
        for label, number in of_class.items():
            group_of[label] = number
        for _, ids in kept:
            local[ids] = np.arange(len(ids))
        slices: list[list[Slice]] = [[] for _ in kept]
        for (key, dim), axis in self._axes.items():
            owners = group_of[axis]
            for number in np.unique(owners[owners >= 0]):
                index = np.where(owners == number, local[axis], -1)
                slices[number].append(Slice(key, dim, flow.roles.get((key, dim), "other"), index))
        return slices

    def _report_barriers(self, freezes: list[tuple[np.ndarray, int]], causes: list[Cause]) -> list[Barrier]:
        channels: Counter[int] = Counter()
        frozen_by: dict[int, list[np.ndarray]] = {}
        for classes, cause in freezes:
            frozen_by.setdefault(cause, []).append(classes)
        frozen_by.pop(FIXED, None)
        for cause, frozen in frozen_by.items():
            kept = np.zeros(self._classes + 1, bool)
            kept[np.concatenate(frozen)] = True
            for family in self._families:
                channels[cause] += max(int(kept[self.classes_of(p.axis)].any(axis=1).sum()) for p in family)
        return [Barrier(c.op, c.node, c.module, c.reason, channels[i]) for i, c in enumerate(causes) if channels[i]]

    def group(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    # --- what a removal does ------------------------------------------------------------------------------

    def _nothing(self) -> np.ndarray:
        return np.zeros(self._classes + 1, bool)

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
        return self._sum_macs(self.removed(kept or {}))

    def macs_by_operator(self, kept: dict[str, np.ndarray] | None = None) -> dict[str, int]:
        """The same, for each operator under the name that fvcore gives it."""
        counts: Counter[str] = Counter()
        for cost, macs in zip(self._costs, self._node_macs(self.removed(kept or {})), strict=True):
            counts[cost.op] += macs
        return dict(counts)

    def params(self, kept: dict[str, np.ndarray] | None = None) -> int:
        """The number of trainable or frozen parameters (buffers do not count), after a removal."""
        return self._sum_params(self.removed(kept or {}))

    def keep(self, kept: dict[str, np.ndarray]) -> dict[str, dict[str, list[int]]]:
        """For each parameter or buffer that a removal slices: {axis: indices that stay}."""
        removed = self.removed(kept)
        result: dict[str, dict[str, list[int]]] = {}
        for (key, dim), axis in self._axes.items():
            stays = alive(axis, removed)
            if not stays.all():
                result.setdefault(key, {})[str(dim)] = np.flatnonzero(stays).tolist()
        return result

    def attributes(self, kept: dict[str, np.ndarray]) -> dict[str, dict[str, int]]:
        """For each module whose numbers must follow its weights: {attribute: new value}."""
        removed = self.removed(kept)
        modules, state = dict(self.model.named_modules()), tensors(self.model)
        owners: dict[int, list[str]] = {}
        for path, module in modules.items():
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                owners.setdefault(id(tensor), []).append(path)
        result: dict[str, dict[str, int]] = {}
        for attribute in self._attributes:
            before = len(attribute.axis) // attribute.divisor
            after = int(alive(self.classes_of(attribute.axis), removed).sum()) // attribute.divisor
            if after == before:
                continue
            for path in owners[id(state[attribute.key])]:
                if getattr(modules[path], attribute.name, None) == before:
                    result.setdefault(path, {})[attribute.name] = after
        return result

    def _node_macs(self, removed: np.ndarray) -> list[int]:
        lengths: dict[int, int] = {}
        result = []
        for cost, axes in zip(self._costs, self._cost_axes, strict=True):
            macs = cost.constant
            for axis in axes:
                if id(axis) not in lengths:
                    lengths[id(axis)] = int(alive(axis, removed).sum())
                macs *= lengths[id(axis)]
            result.append(macs)
        return result

    def _sum_macs(self, removed: np.ndarray) -> int:
        return sum(self._node_macs(removed))

    def _sum_params(self, removed: np.ndarray) -> int:
        total = 0
        for key, _ in self.model.named_parameters():
            size = 1
            for dim, length in enumerate(self._shapes[key]):
                axis = self._axes.get((key, dim))
                size *= length if axis is None else int(alive(axis, removed).sum())
            total += size
        return total


def _layer_name(key: str) -> str:
    stem, _, last = key.rpartition(".")
    return stem if last == "weight" and stem else key
