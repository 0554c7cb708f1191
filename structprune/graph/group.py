"""A group of coupled channels: what of which parameter it controls, and which of its units may go together."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .axes import read_only

Kind = Literal["exact", "exact in evaluation", "statistic-changing"]


@dataclass(frozen=True)
class Slice:
    """One axis of one parameter or buffer that a group controls.

    `index` has shape (positions, k): the group's units on each position, -1 where a position (also) carries
    none of this group. `role` is filter, passed, consumer, norm, bias or other. Where blocks of axis 0 keep different
    positions (axis 1 of a grouped convolution's weight), the positions of all blocks follow each other.
    """

    key: str
    dim: int
    role: str
    index: np.ndarray

    def __post_init__(self) -> None:
        read_only(self.index)


@dataclass(frozen=True, repr=False)
class Group:
    """Channels that are ranked together: a layer's filters, with everything that is coupled to them.

    `name` is the leading layer: of the layers that make these channels, the nearest to the input (so a
    projection shortcut leads its stage), and, where a layer's channels are a product (heads × channels of a head),
    the factor. `units` counts what can be removed one by one, `channels` those of the leading layer. `slices` starts
    with the leading layer's filters, then those of the other layers that make the channels. `exact` says that, in
    evaluation, removing equals masking with zero; if not, an op takes a statistic over the channels (LayerNorm, a sum
    of sigmoids), in the slim network over those that are left. `exact_in_training` is false also where BatchNorm takes
    the statistics of a batch over the channels. `strata` numbers the stratum of each unit, and `rates` says how many
    units of each stratum go at a time: one, or for one head of 32 channels 32 of those that it is added to. `floors`
    are axes, as (positions, k) of the group's units, and how many positions of them must stay.
    """

    name: str
    units: int
    channels: int
    exact: bool
    exact_in_training: bool
    slices: tuple[Slice, ...]
    floors: tuple[tuple[np.ndarray, int], ...]
    ids: np.ndarray
    strata: np.ndarray
    rates: tuple[int, ...]
    allowed: frozenset[int] | None = None

    def __post_init__(self) -> None:
        for array in (self.ids, self.strata, *(axis for axis, _ in self.floors)):
            read_only(array)

    def __repr__(self) -> str:
        channels = f", {self.channels} channels" if self.channels != self.units else ""
        steps = f", {self.step} at a time" if self.step > 1 else ""
        tensors = len({s.key for s in self.slices})
        return (
            f"<Group {self.name}: {self.units} units{channels}{steps}, {self.kind}, in {tensors} tensors of the model>"
        )

    @property
    def kind(self) -> Kind:
        """Whether removing channels is masking them with zero: always, without a batch's statistics, or never."""
        if not self.exact:
            return "statistic-changing"
        return "exact" if self.exact_in_training else "exact in evaluation"

    @property
    def leading(self) -> Slice:
        return self.slices[0]

    def allows(self, width: int) -> bool:
        """Tells whether the group may have a width: at some, the model's code takes another path.

        Args:
            width: a number of units

        Returns:
            Whether it may.
        """
        return self.allowed is None or width in self.allowed

    @functools.cached_property
    def step(self) -> int:
        """How many units go together at least: of each stratum its rate."""
        return sum(self.rates)

    @property
    def removable(self) -> int:
        """The most units that can go without emptying a stratum."""
        return self.step * self.steps(np.ones(len(self.rates), int))

    def steps(self, least: np.ndarray) -> int:
        """Counts how often all strata can lose what goes at a time.

        Args:
            least: for each stratum, how many units must stay

        Returns:
            How many steps there are.
        """
        return int(((np.bincount(self.strata) - least) // self.rates).min())

    def channels_of(self, width: int) -> int:
        """Counts the channels of the leading layer at a width; its fixed channels always stay.

        Args:
            width: a number of units

        Returns:
            The channels; the width itself where the layer makes only some of the units.
        """
        if not self.channels_per_step:
            return width
        return self.channels - (self.units - width) * self.channels_per_step // self.step

    @functools.cached_property
    def channels_per_step(self) -> int:
        """How many of the leading layer's channels go when all strata lose what goes at a time; 0 if that varies."""
        index = self.leading.index
        first = index.max(axis=1)
        on = np.bincount(self.strata[first[first >= 0]], minlength=len(self.rates)) * self.rates
        all_units = np.bincount(self.strata)
        return 0 if (on % all_units).any() else int((on // all_units).sum())

    def best(self, scores: np.ndarray, width: int) -> np.ndarray:
        """Picks the units of highest score, of each stratum the best. Of equal scores the first stay.

        Args:
            scores: shape (units,)
            width: how many; `units` less a multiple of `step`

        Returns:
            Their indices in rising order.
        """
        lost = (self.units - width) // self.step
        chosen = []
        for stratum, rate in enumerate(self.rates):
            members = np.flatnonzero(self.strata == stratum)
            order = np.argsort(-scores[members], kind="stable")
            chosen.append(members[order[: len(members) - lost * rate]])
        return np.sort(np.concatenate(chosen))

    def must_stay(self, scores: np.ndarray, min_channels: int = 1) -> np.ndarray:
        """Picks the fewest units, by rank, that leave no layer with too few channels.

        Layers may make different parts of a group (`cat([a, b]) + c`), so the best units of all might empty one.

        Args:
            scores: shape (units,)
            min_channels: how many stay in each layer that makes the group's channels; one stays in each that
                consumes them

        Returns:
            Shape (units,), bool.
        """
        kept = np.zeros(self.units + 1, bool)
        kept[-1] = True  # what the padding -1 looks up
        order = np.argsort(-scores, kind="stable")
        for index, least in self.least(min_channels):
            for unit in order[np.isin(order, index)]:
                if int(kept[index].all(axis=1).sum()) >= min(least, len(index)):
                    break
                kept[unit] = True
        return kept[:-1]

    def ranked(self, scores: np.ndarray, min_channels: int = 1) -> np.ndarray:
        """Puts the units that must stay before all others.

        Args:
            scores: shape (units,)
            min_channels: as in `must_stay`

        Returns:
            The scores, with infinity for those.
        """
        return np.where(self.must_stay(scores, min_channels), np.inf, scores)

    def chosen(self, scores: np.ndarray, width: int, min_channels: int = 1) -> np.ndarray:
        """Picks the units of highest score, after those that must stay.

        Args:
            scores: shape (units,)
            width: how many; `units` less a multiple of `step`
            min_channels: as in `must_stay`

        Returns:
            Their indices in rising order.
        """
        return self.best(self.ranked(scores, min_channels), width)

    def least(self, min_channels: int) -> list[tuple[np.ndarray, int]]:
        """Lists what each layer must keep.

        Args:
            min_channels: how many of what a layer makes; of what anything consumes it is one

        Returns:
            Pairs of an axis, shape (positions, units of this group on each), and how many of its positions must
            stay.
        """
        floors: dict[bytes, tuple[np.ndarray, int]] = {}
        indices = [(s.index, min_channels if s.role == "filter" else 1) for s in self.slices]
        for index, least in (*indices, *self.floors):
            key = index.tobytes()
            floors[key] = (index, max(least, floors[key][1] if key in floors else 0))
        return list(floors.values())

    def narrowed(self, share: int) -> np.ndarray:
        """Picks units for a small trial: spread evenly, two of each stratum of three or more, no empty layer.

        Args:
            share: one unit in so many stays

        Returns:
            The indices of the units that stay.
        """
        counts = np.bincount(self.strata)
        few = np.maximum(np.minimum(2, counts - self.rates), counts // share)  # one may run other code
        most = max(self.steps(few), 1)
        place = np.zeros(self.units)
        for stratum in range(len(self.rates)):
            members = self.strata == stratum
            place[members] = -(np.arange(members.sum()) % share)
        for lost in (n for n in range(most, 0, -1) if self.allows(self.units - n * self.step)):
            kept = np.zeros(self.units + 1, bool)
            kept[self.best(place, self.units - lost * self.step)] = True
            kept[-1] = True  # what the padding -1 looks up
            empty = [i for i, n in self.least(1) if int(kept[i].all(axis=1).sum()) < n]
            if empty and self.step == 1:
                for index in empty:
                    kept[index] = True
                empty = []
            if not empty:
                return np.flatnonzero(kept[:-1])
        return np.arange(self.units)
