"""What it costs to keep so many units of a group: as a scan measured it, by importance, or by both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np

from ..records import Scores, Sensitivity
from .budget import Choice, Widths

BETWEEN = 3  # losses that are drawn between two that were measured
LEAST = 1e-6  # of the largest loss of random inputs: no group loses less
PLAIN = 0.75  # of what uniform ratios lose: what is measured by random inputs has to promise less, where a cut is mild
MILD = 2 / 3  # of each group's units, on average: where uniform ratios keep more

Losses = dict[str, Callable[[int], float]]  # for each group, what it costs to keep so many units


def losses_of(choices: list[Choice], scores: Scores) -> Losses:
    """What it costs to keep so many units of each group.

    After a scan of samples: its losses, interpolated on their lower convex hull. After one of random inputs: the
    geometric mean of these and of (importance that goes) ÷ (importance that stays), once for each layer that makes the
    channels. What random inputs lose tells groups apart by orders of magnitude, as samples do, but says little of how
    far one may be narrowed: what samples need of it may be nothing to noise. Without a scan: -ln(share of the
    importance that stays), once for each layer, so that the sum is of the product of all shares.

    Args:
        choices: The groups.
        scores: Of their units; importance is a score's share of its group's sum.

    Returns:
        For each group that has a loss, a function of the units that stay.
    """
    scan = scores.sensitivity
    if scan is None:
        return {c.group.name: _unlikely(c, scores) for c in choices if c.group.name in scores.values}
    measured = {c.group.name: hull(scan.losses[c.group.name]) for c in choices if c.group.name in scan.losses}
    if scan.inputs == "samples":
        return measured
    least = LEAST * max((loss for losses in scan.losses.values() for loss in losses.values()), default=0.0)

    def weighed(choice: Choice) -> Callable[[int], float]:
        noise, odds = measured[choice.group.name], _odds(choice, scores)
        if least == 0:  # nothing that is pruned shows in the outputs
            return odds
        return lambda units: math.sqrt(max(noise(units), least) * odds(units))

    return {c.group.name: weighed(c) for c in choices if c.group.name in measured}


def is_plain_gain(scan: Sensitivity, losses: Losses, widths: Widths, even: Widths) -> bool:
    """Whether widths lose plainly less by a scan of random inputs than the same ratio in every group does.

    That is a rough measure: it finds groups that are worth ten times as much as others, as in residual networks, where
    uniform ratios are far off. In plain chains of layers it promises little, and of that it keeps nothing where the cut
    is mild. Where the cut is deep it keeps more than it promises, and any promise counts (docs/choosing.md).

    Args:
        scan: That of random inputs, which the losses are of.
        losses: What each group loses by its width.
        widths: Those in question.
        even: Those of uniform ratios, for the same budget.

    Returns:
        Whether they do.
    """
    if not losses:
        return False
    lost, beside = (sum(losses[name](at[name]) for name in losses) for at in (widths, even))
    kept = sum(even[name] / max(scan.losses[name]) for name in losses) / len(losses)
    return lost < (PLAIN if kept > MILD else 1.0) * beside


def _unlikely(choice: Choice, scores: Scores) -> Callable[[int], float]:
    share, layers = _share(choice, scores), _layers(choice)
    return lambda units: -layers * math.log(share(units))


def _odds(choice: Choice, scores: Scores) -> Callable[[int], float]:
    share, layers = _share(choice, scores), _layers(choice)
    return lambda units: layers * (1 / share(units) - 1)


def _layers(choice: Choice) -> int:
    """How many layers make the group's channels."""
    return sum(s.role == "filter" for s in choice.group.slices) or 1


def _share(choice: Choice, scores: Scores) -> Callable[[int], float]:
    """The share of a group's importance that its best units have; of its units where scores can't be summed."""
    values = scores.values.get(choice.group.name, np.zeros(choice.group.units))
    kept = np.cumsum(np.sort(values)[::-1])
    if (values < 0).any() or kept[-1] <= 0:
        kept = np.arange(1, len(values) + 1)
    least = 1e-6 / len(kept)
    return lambda units: max(float(kept[units - 1] / kept[-1]), least)


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
