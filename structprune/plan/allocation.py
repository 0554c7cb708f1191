"""How a budget is shared among the groups.

An allocation gets the choices, the scores and `load`: `load(widths)` is the largest share of any budget that these
widths use (1.0 is exactly all), `load.shares(widths)` that of each. It returns the widths. It may assume that the
narrowest widths fit.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from ..errors import BudgetError
from ..progress import quiet
from ..records import Scores, Sensitivity
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


STEPS = 48  # the most steps in which a group is narrowed
LOOKAHEAD = 3  # how many of them are weighed at once: a runtime may not gain by each


@allocation("sensitivity")
def sensitivity(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """The widths whose measured losses, one group pruned at a time, have the least sum within the budget.

    Losses between the measured widths are interpolated on their lower convex hull; then the group whose next step costs
    the least for what it saves of the budget is narrowed, again and again. Groups without a measurement stay whole.
    """
    if scores.sensitivity is None:
        raise BudgetError("allocation sensitivity needs a scan: plan(..., sensitivity=structprune.sensitivity(...))")
    return _cheapest(choices, _scanned(choices, scores.sensitivity), scores, load)


Losses = dict[str, Callable[[int], float]]  # for each group, what it costs to keep so many units


def _scanned(choices: list[Choice], scan: Sensitivity) -> Losses:
    return {c.group.name: _hull(scan.losses[c.group.name]) for c in choices if c.group.name in scan.losses}


def _cheapest(choices: list[Choice], losses: Losses, scores: Scores, load: Load) -> Widths:
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


WINDOW = 6  # how many widths a group may move by at once
ROUNDS = 30
NODES = 100  # of the solver's tree: a limit of time would make plans depend on what else the machine does


@allocation("knapsack")
def knapsack(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """The widths that keep most within all budgets, as integer programs that scipy's HiGHS solves.

    What is lost is the scan's loss where the scores have one (see `sensitivity`). Otherwise, for each layer that makes
    channels, -ln(share of its group's scores that stays): so the kept importance is a product over layers, in which
    scores need only compare within a group. What a group uses depends on its neighbours' widths, so each program takes
    the budgets as linear about the present widths, within a few widths of them; it is solved again from the widths
    found, until nothing is gained. It starts from two sets of widths, `uniform`'s and those of the steepest descent.
    """
    if scores.sensitivity is not None:
        losses = _scanned(choices, scores.sensitivity)
    else:
        losses = {c.group.name: _importance_lost(c, scores) for c in choices if c.group.name in scores.values}
    lost = {
        c.group.name: {int(w): losses[c.group.name](int(w)) for w in c.widths}
        for c in choices
        if c.group.name in losses
    }

    if not lost:
        return uniform(choices, scores, load)

    def total(at: Widths) -> float:
        return sum(lost[name][at[name]] for name in lost)

    starts = [_cheapest(choices, losses, scores, load), uniform(choices, scores, load)]
    found = [_improved(choices, lost, start, load) for start in starts if load(start) <= 1]
    widths = min(found, key=total) if found else starts[0]
    return fill(choices, widths, load, sorted(lost, key=lambda name: -lost[name][widths[name]]))


def _improved(choices: list[Choice], lost: Mapping[str, Mapping[int, float]], start: Widths, load: Load) -> Widths:
    """`start`, improved by one integer program after the other."""

    def total(at: Widths) -> float:
        return sum(lost[name][at[name]] for name in lost)

    widths, window = start, WINDOW
    margin = np.zeros(len(load.shares(widths)))
    for _ in range(ROUNDS):
        near = {c.group.name: _near(c, widths[c.group.name], window if c.group.name in lost else 0) for c in choices}
        found, expected = _solve(near, lost, widths, load, margin)
        if found is None or total(found) >= total(widths) - 1e-9:
            if window == 1:
                break
            window, margin = window // 2, 0 * margin
            continue
        shares = load.shares(found)
        if shares.max() <= 1:
            widths, margin = found, 0 * margin
        else:  # the program saw less than is used
            margin = margin + np.maximum(shares - np.minimum(expected, 1.0), 0) + 1e-4
    return _traded(choices, lost, widths, load)


def _traded(
    choices: list[Choice], lost: Mapping[str, Mapping[int, float]], widths: Widths, load: Load, tries: int = 1000
) -> Widths:
    """`widths`, with up to three steps of one group given for up to three of another while that keeps more: what linear
    budgets do not see where there are few widths."""
    ladders = {c.group.name: [int(w) for w in c.widths] for c in choices if c.group.name in lost}
    for _ in range(30):
        moves = {}
        for name, ladder in ladders.items():
            place = ladder.index(widths[name])
            moves[name] = [(w, lost[name][w] - lost[name][widths[name]]) for w in ladder[max(0, place - 3) : place + 4]]
        trades = [
            (one + other, {a: narrow, b: wide})
            for a in ladders
            for b in ladders
            if a != b
            for narrow, one in moves[a]
            if narrow <= widths[a]
            for wide, other in moves[b]
            if wide > widths[b] and one + other < -1e-9
        ]
        trades.sort(key=lambda trade: trade[0])
        for _, trade in trades[:tries]:
            tries -= 1
            if load({**widths, **trade}) <= 1:
                widths = {**widths, **trade}
                break
        else:
            break
    return widths


def _importance_lost(choice: Choice, scores: Scores) -> Callable[[int], float]:
    group = choice.group
    kept = np.cumsum(np.sort(np.maximum(scores.values[group.name], 0))[::-1])
    layers = sum(s.role == "filter" for s in group.slices) or 1
    least = 1e-6 / len(kept)

    def at(units: int) -> float:
        share = kept[units - 1] / kept[-1] if kept[-1] > 0 else units / len(kept)
        return -layers * math.log(max(share, least))

    return at


def _near(choice: Choice, width: int, window: int) -> list[int]:
    place = int(np.searchsorted(choice.widths, width))
    return [int(w) for w in choice.widths[max(0, place - window) : place + window + 1]]


def _solve(
    near: Mapping[str, list[int]],
    lost: Mapping[str, Mapping[int, float]],
    widths: Widths,
    load: Load,
    margin: np.ndarray,
) -> tuple[Widths | None, np.ndarray]:
    """The best of the widths in `near`, with budgets linear about `widths` and `margin` less of them; what it expects
    to use."""
    here = load.shares(widths)
    places = [(name, w) for name, own in near.items() if name in lost for w in own]
    used = np.stack([load.shares({**widths, name: w}) - here for name, w in places], axis=1)
    names = list(dict.fromkeys(name for name, _ in places))
    once = np.array([[float(name == n) for name, _ in places] for n in names])
    with quiet():  # HiGHS prints from C++
        result = milp(
            c=[lost[name][w] for name, w in places],
            integrality=np.ones(len(places)),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(once, 1, 1), LinearConstraint(used, -np.inf, 1 - here - margin)],
            options={"node_limit": NODES, "mip_rel_gap": 2e-3},
        )
    if result.x is None:
        return None, here
    taken = result.x > 0.5
    return {**widths, **{name: w for (name, w), t in zip(places, taken, strict=True) if t}}, here + used @ taken


def _ladder(widths: np.ndarray) -> np.ndarray:
    """From the widest to the narrowest width in at most about `STEPS` steps."""
    steps = widths[:: -max(1, len(widths) // STEPS)]
    return steps if steps[-1] == widths[0] else np.append(steps, widths[0])


def _hull(losses: Mapping[int, float]) -> Callable[[int], float]:
    """A falling convex function of the kept units under the measured losses, a line between its corners; narrower than
    what was measured, twice as steep as at the end."""
    corners: list[tuple[int, float]] = []
    highest = 0.0
    for kept in sorted(losses, reverse=True):
        highest = max(highest, losses[kept])
        point = (kept, highest)
        while len(corners) > 1 and _slope(corners[-2], corners[-1]) > _slope(corners[-1], point):
            corners.pop()
        corners.append(point)
    last = 2 * _slope(corners[-2], corners[-1]) if len(corners) > 1 else 0.0
    x, y = (np.array(values, dtype=float) for values in zip(*corners[::-1], strict=True))

    def at(kept: int) -> float:
        return float(np.interp(kept, x, y)) + max(0.0, x[0] - kept) * last

    return at


def _slope(a: tuple[int, float], b: tuple[int, float]) -> float:
    """How much the loss rises for each unit less, from a to the narrower b."""
    return (b[1] - a[1]) / (a[0] - b[0])


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
