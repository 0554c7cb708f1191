"""One threshold on the scores of all groups."""

from __future__ import annotations

import numpy as np

from ..records import Scores
from .allocations import Load, allocation
from .budget import Choice, Widths
from .uniform import bisect, fill


@allocation("global", "one threshold on scores that are divided by their group's mean", needs=["positive"])
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

    widths = at(bisect(lambda p: load(at(p)) <= 1))

    def best_lost(choice: Choice) -> float:
        values, kept = relative[choice.group.name], widths[choice.group.name]
        return float(values[kept]) if kept < len(values) else -np.inf

    order = [c.group.name for c in sorted(choices, key=best_lost, reverse=True)]
    return fill(choices, widths, load, order)


@allocation("threshold", "one threshold on scores as they are, such as those of `slimming`")
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

    return at(bisect(lambda p: load(at(p)) <= 1))
