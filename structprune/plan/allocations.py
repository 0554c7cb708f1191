"""How a budget is shared among the groups: the table of allocations, and those that go by the scores alone.

An allocation gets the choices, the scores and `load`: `load(widths)` is the largest share of any budget that these
widths use (1.0 is exactly all), `load.shares(widths)` that of each. It returns the widths. It may assume that the
narrowest widths fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..records import Scores
from .budget import Choice, Widths


@dataclass(frozen=True)
class Load:
    """What widths use of each budget: `shares` gives an array with one number a budget, 1.0 where it is all used."""

    shares: Callable[[Widths], np.ndarray]

    def __call__(self, widths: Widths) -> float:
        return float(self.shares(widths).max())


Allocation = Callable[[list[Choice], Scores, Load], Widths]

ALLOCATIONS: dict[str, Allocation] = {}


def allocation(name: str) -> Callable[[Allocation], Allocation]:
    """Registers an allocation under a name that recipes can use; a name that is taken raises ValueError."""

    def register(function: Allocation) -> Allocation:
        if name in ALLOCATIONS:
            raise ValueError(f"an allocation named {name!r} is registered already")
        ALLOCATIONS[name] = function
        return function

    return register


@allocation("uniform")
def uniform(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """The same pruning ratio in every group, as near as its widths allow.

    The ratio is found by bisection; what rounding leaves of the budget goes to the groups that it cut most.
    """

    def at(ratio: float) -> Widths:
        return {c.group.name: c.nearest(c.group.units * (1 - ratio)) for c in choices}

    ratio = _bisect(lambda r: load(at(r)) <= 1)
    widths = at(ratio)
    cut = {c.group.name: (c.group.units * (1 - ratio) - widths[c.group.name]) / c.group.units for c in choices}
    return fill(choices, widths, load, sorted(cut, key=lambda name: -cut[name]))


@allocation("global")
def global_(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """One threshold for all groups, on each unit's score divided by the mean score of its group.

    The division makes layers of different fan-in comparable: a unit stays if it is important for its layer.
    """
    relative = {}
    for choice in choices:
        if choice.group.name not in scores.values:  # stays whole
            relative[choice.group.name] = np.full(choice.group.units, np.inf)
            continue
        values = scores.values[choice.group.name]
        relative[choice.group.name] = np.sort(values / (values.mean() or 1.0))[::-1]
    levels = np.unique(np.concatenate([*relative.values(), np.zeros(1)]))
    levels = levels[np.isfinite(levels)]

    def at(position: float) -> Widths:
        level = levels[min(int(position * len(levels)), len(levels) - 1)]
        above = {c.group.name: int((relative[c.group.name] > level).sum()) for c in choices}
        if position <= 0:
            above = {c.group.name: c.group.units for c in choices}
        if position >= 1:
            above = {c.group.name: 0 for c in choices}
        return {c.group.name: c.nearest(above[c.group.name]) for c in choices}

    widths = at(_bisect(lambda p: load(at(p)) <= 1))

    def best_lost(choice: Choice) -> float:
        values, kept = relative[choice.group.name], widths[choice.group.name]
        return float(values[kept]) if kept < len(values) else -np.inf

    order = [c.group.name for c in sorted(choices, key=best_lost, reverse=True)]
    return fill(choices, widths, load, order)


@allocation("threshold")
def threshold(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """One threshold for all groups on the scores as they are, and what is strictly greater stays.

    With the criterion `slimming` and a budget of `channels`, the global percentile of Liu et al., Network Slimming,
    ICCV 2017, section 3; `min_channels` and `max_ratio` are the least and the cap of each layer. Nothing is filled up.
    For scores that compare over layers; `global` makes others comparable.
    """
    values = {c.group.name: np.sort(scores.values[c.group.name]) for c in choices if c.group.name in scores.values}
    levels = np.unique(np.concatenate(list(values.values()))) if values else np.zeros(1)

    def at(position: float) -> Widths:
        level = levels[min(int(position * len(levels)), len(levels) - 1)] if position > 0 else -np.inf
        return {
            c.group.name: c.nearest(int((values[c.group.name] > level).sum()))
            if c.group.name in values
            else int(c.widths[-1])
            for c in choices
        }

    return at(_bisect(lambda p: load(at(p)) <= 1))


def fill(choices: list[Choice], widths: Widths, load: Load, order: list[str]) -> Widths:
    """Gives each group in `order` its next wider width where the budget still holds.

    Once round, so that the shares stay as they were allocated; again only while over 1 % is left. Where single
    steps are too coarse for that, one group is widened for a step less in another.
    """
    of_name = {c.group.name: c for c in choices}
    while True:
        before = widths
        for name in order:
            wider = of_name[name].next_above(widths[name])
            if wider is not None and load({**widths, name: wider}) <= 1:
                widths = {**widths, name: wider}
        if load(widths) >= 0.99:
            return widths
        if widths == before:
            return _exchange(choices, widths, load)


def _exchange(choices: list[Choice], widths: Widths, load: Load, tries: int = 400) -> Widths:
    """The best of up to `tries` exchanges of a step between two groups; stops at 1 % below the budget."""
    best, used = widths, load(widths)
    up = {c.group.name: c.next_above(widths[c.group.name]) for c in choices}
    down = {c.group.name: c.next_below(widths[c.group.name]) for c in choices}
    pairs = ((a, b) for a in up for b in down if a != b)
    steps = ((a, b, wide, narrow) for a, b in pairs if (wide := up[a]) is not None and (narrow := down[b]) is not None)
    for a, b, wide, narrow in itertools.islice(steps, tries):
        candidate = {**widths, a: wide, b: narrow}
        if used < (now := load(candidate)) <= 1:
            best, used = candidate, now
            if used >= 0.99:
                break
    return best


def _bisect(fits: Callable[[float], bool]) -> float:
    """The smallest number in [0, 1], to 2**-20, for which `fits` holds; it holds at 1 and stays once it does."""
    if fits(0.0):
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
