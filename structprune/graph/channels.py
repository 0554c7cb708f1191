"""The channel graph as data: which channels of a model go together, what follows them, and why others stay.

Functions on it stand in modules of their own: `removal` and `attributes` say what a removal changes, `counting` what it
saves, `barriers` why channels stay, and `program` writes the slim network's calls.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ..ops import Captured, Inputs
from ..typing import Form
from .axes import Axis, read_only
from .flow import Attribute, Statistic
from .group import Group
from .trials import Sizes, explore
from .units import Cause, Resolution

Place = tuple[str, int]  # the key of a parameter or buffer, and one of its axes


@dataclass(frozen=True)
class Term:
    """One summand of a count: `constant` times the lengths of `axes`, over `divisor`; `op` is what it counts."""

    constant: int
    axes: tuple[np.ndarray, ...]
    divisor: int = 1
    op: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class ChannelGraph:
    """Groups of channels that go together, and all that depends on how many of them stay. Nothing of it changes.

    Channels that only go together are one *class*. Where it says axis of classes, that is an array of shape
    (positions, k): the classes that each position carries, -1 for none. A *removal* is a mapping from a group's name to
    the indices of the units that it keeps; groups that are not named stay whole.

    Attributes:
        model: the traced model, whose weights criteria read.
        form: what the slim network will be, "module" or "graph".
        groups: what is ranked and removed together.
        notes: what a user should know of how the model was traced.
        recording: the forward pass on the example inputs; those who run it again get it whole, `graph` looks inside.
        values: what each call of that pass makes, by the name of its node: axes of units, see `classes_of`.
        paths: the same graph on the other ways that the code goes at other batch sizes, for the graph form.
        axes: the classes on each axis of each parameter and buffer of which anything might go.
        blocked: those whose kept positions differ from block to block of axis 0 (grouped convolutions); their `axes`
            hold the positions of all blocks, end to end.
        shapes: the dense shape of each parameter and buffer.
        macs_terms: what multiply-adds are a sum of.
        params_terms: what the number of parameters is a sum of.
        statistics: calls that take a statistic over channels, with axes of classes.
        attributes: numbers of modules that follow the length of an axis of classes.
        expressions: expressions of such numbers that must come to the length of an axis of classes.
        channel_axes: of each layer the axis of classes that it makes.
        resolution: which class each unit is in, and which classes stay.
        causes: why they do; `resolution.freezes` has the index of a cause.
    """

    model: nn.Module
    form: Form
    groups: tuple[Group, ...]
    recording: Captured
    values: Mapping[str, Any]
    axes: Mapping[Place, np.ndarray]
    blocked: frozenset[Place]
    shapes: Mapping[str, tuple[int, ...]]
    macs_terms: tuple[Term, ...]
    params_terms: tuple[Term, ...]
    statistics: tuple[Statistic, ...]
    attributes: tuple[Attribute, ...]
    expressions: tuple[tuple[Any, Axis], ...]
    channel_axes: tuple[np.ndarray, ...]
    resolution: Resolution
    causes: tuple[Cause, ...]
    notes: tuple[str, ...] = ()
    paths: tuple[ChannelGraph, ...] = ()

    @property
    def inputs(self) -> Inputs:
        """The example inputs."""
        return self.recording.inputs

    @functools.cached_property
    def nodes(self) -> int:
        """The number of ops in one forward pass."""
        return len(self.recording.calls)

    @property
    def classes(self) -> int:
        """The number of classes of tied units."""
        return self.resolution.classes

    @functools.cached_property
    def in_group(self) -> np.ndarray:
        """Whether each class is in a group, with one False more for positions that carry none."""
        in_group = np.zeros(self.classes + 1, bool)
        for group in self.groups:
            in_group[group.ids] = True
        return read_only(in_group)

    @functools.cached_property
    def sizes(self) -> Sizes:
        """Which axes of the inputs may have other sizes, by recordings at such."""
        return explore(self.model, self.recording)

    def group(self, name: str) -> Group:
        """Looks a group up.

        Args:
            name: as in `Group.name`

        Returns:
            The group of that name.

        Raises:
            KeyError: there is none
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def classes_of(self, axis: np.ndarray) -> np.ndarray:
        """Looks up the classes on an axis.

        Args:
            axis: an axis of units

        Returns:
            The class of each position, in the shape of the axis.
        """
        return self.resolution.of(axis)

    def removable(self, axis: np.ndarray) -> bool:
        """Tells whether anything can be removed from an axis.

        Args:
            axis: an axis of units

        Returns:
            Whether any position can go.
        """
        return bool(self.in_group[self.classes_of(axis)].any())
