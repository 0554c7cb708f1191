"""The steepest descent over losses: the group that loses least for what it saves is narrowed, again and again."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np

from ..records import Scores, Sensitivity
from .allocations import Load, allocation
from .budget import Choice, Widths
from .uniform import fill, uniform

STEPS = 48  # the most steps in which a group is narrowed
LOOKAHEAD = 3  # how many of them are weighed at once: a runtime may not gain by each
BETWEEN = 3  # losses that are drawn between two that were measured

Losses = dict[str, Callable[[int], float]]  # for each group, what it costs to keep so many units


@allocation("sensitivity", "least sum of losses, as a scan measured them", needs=["scan"], for_speed=True)
def sensitivity(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """The widths whose measured losses, one group pruned at a time, have the least sum within the budget.

    Losses between the measured widths are interpolated on their lower convex hull; then the group whose next step costs
    the least for what it saves of the budget is narrowed, again and again. Groups without a measurement stay whole.
    """
    assert scores.sensitivity is not None
    return cheapest(choices, scanned(choices, scores.sensitivity), scores, load)


def scanned(choices: list[Choice], scan: Sensitivity) -> Losses:
    """The losses of the groups that a scan has measured."""
    return {c.group.name: hull(scan.losses[c.group.name]) for c in choices if c.group.name in scan.losses}


def cheapest(choices: list[Choice], losses: Losses, scores: Scores, load: Load) -> Widths:
    """Narrows the group whose next step costs the least for what it saves, until the budgets hold."""
    ladders = {c.group.name: _ladder(c.widths) if c.group.name in losses else c.widths[-1:] for c in choices}
    place = dict.fromkeys(ladders, 0)
    widths = {name: int(ladder[0]) for name, ladder in ladders.items()}
    used = load(widths)

    def step(name: str) -> tuple[float, int]:
        """The price of narrowing a group, the loss for each share of the budget, and to which place of its ladder."""
        now, best = widths[name], (math.inf, place[name] + 1)
        for place_then in range(place[name] + 1, min(place[name] + 1 + LOOKAHEAD, len(ladders[name]))):
            then = int(ladders[name][place_then])
            saved = used - load({**widths, name: then})
            if saved > 0:
                best = min(best, ((losses[name](then) - losses[name](now)) / saved, place_then))
        return best

    queue = [(step(name)[0], name) for name, ladder in ladders.items() if len(ladder) > 1]
    heapq.heapify(queue)
    while used > 1 and queue:
        _, name = heapq.heappop(queue)
        again, then = step(name)
        if queue and again > queue[0][0]:
            heapq.heappush(queue, (again, name))  # what others lost has changed what this one saves
            continue
        place[name] = then
        widths[name] = int(ladders[name][then])
        used = load(widths)
        if place[name] + 1 < len(ladders[name]):
            heapq.heappush(queue, (step(name)[0], name))
    if used > 1:  # what was not measured has to go too
        rest = [c for c in choices if c.group.name not in losses]
        return {**widths, **uniform(rest, scores, Load(lambda others: load.shares({**widths, **others})))}

    def regained(choice: Choice) -> float:
        now = widths[choice.group.name]
        loss = losses[choice.group.name]
        return loss(now) - loss(choice.next_above(now) or now)

    measured = [c for c in choices if c.group.name in losses]
    return fill(measured, widths, load, [c.group.name for c in sorted(measured, key=regained, reverse=True)])


def _ladder(widths: np.ndarray) -> np.ndarray:
    """From the widest to the narrowest width in at most about `STEPS` steps."""
    steps = widths[:: -max(1, len(widths) // STEPS)]
    return steps if steps[-1] == widths[0] else np.append(steps, widths[0])


def hull(losses: Mapping[int, float]) -> Callable[[int], float]:
    """A falling convex function of the kept units under the measured losses and those between them (see `between`), a
    line between its corners; narrower than what was measured, twice as steep as at the end."""
    corners: list[tuple[int, float]] = []
    for point in between(losses):
        while len(corners) > 1 and _slope(corners[-2], corners[-1]) > _slope(corners[-1], point):
            corners.pop()
        corners.append(point)
    last = 2 * _slope(corners[-2], corners[-1]) if len(corners) > 1 else 0.0
    x, y = (np.array(values, dtype=float) for values in zip(*corners[::-1], strict=True))

    def at(kept: int) -> float:
        return float(np.interp(kept, x, y)) + max(0.0, x[0] - kept) * last

    return at


def between(losses: Mapping[int, float]) -> list[tuple[int, float]]:
    """Measured losses, made to rise as units go, and such between them as powers of the units that are gone give.

    Args:
        losses: by the number of units that are kept, that of all of them among them.

    Returns:
        Pairs of units that are kept and a loss, from all units down. Up to the first that was measured the power is
        that of the first two, at least 1.
    """
    units, highest = max(losses), 0.0
    measured = []
    for kept in sorted(losses, reverse=True):
        highest = max(highest, losses[kept])
        measured.append((units - kept, highest))
    powers = [_power(a, b) for a, b in itertools.pairwise(measured)]
    if powers:
        powers[0] = max(1.0, powers[1]) if len(powers) > 1 else 1.0
    points = [(units, measured[0][1])]
    for power, (gone, _), (end, loss) in zip(powers, measured, measured[1:], strict=False):
        places = np.unique(np.linspace(gone, end, BETWEEN + 2).round().astype(int))[1:]
        points += [(units - int(place), loss * (place / end) ** power) for place in places]
    return points


def _power(a: tuple[int, float], b: tuple[int, float]) -> float:
    """The power of the units that are gone by which the loss rises from a to b; 1 where either is none."""
    if a[0] == 0 or a[1] <= 0 or b[1] <= 0:
        return 1.0
    return math.log(b[1] / a[1]) / math.log(b[0] / a[0])


def _slope(a: tuple[int, float], b: tuple[int, float]) -> float:
    """How much the loss rises for each unit less, from a to the narrower b."""
    return (b[1] - a[1]) / (a[0] - b[0])
