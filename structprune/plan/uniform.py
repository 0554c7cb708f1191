"""The same share of every group; and what rounding leaves of a budget, which all allocations fill up."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ..records import Scores
from .allocations import Load, allocation
from .budget import Choice, Widths


@allocation("uniform", "the same pruning ratio in every group")
def uniform(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """The same pruning ratio in every group, as near as its widths allow.

    The ratio is found by bisection; what rounding leaves of the budget goes to the groups that it cut most.
    """

    def at(ratio: float) -> Widths:
        return {c.group.name: c.nearest(c.group.units * (1 - ratio)) for c in choices}

    ratio = bisect(lambda r: load(at(r)) <= 1)
    widths = at(ratio)
    cut = {c.group.name: (c.group.units * (1 - ratio) - widths[c.group.name]) / c.group.units for c in choices}
    return fill(choices, widths, load, sorted(cut, key=lambda name: -cut[name]))


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


def bisect(fits: Callable[[float], bool]) -> float:
    """The smallest number in [0, 1], to 2**-20, for which `fits` holds; it holds at 1 and stays once it does."""
    if fits(0.0):
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
