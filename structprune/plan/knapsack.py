"""Widths by integer programs: the least sum of losses within all budgets at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from ..progress import quiet
from ..records import Scores
from .allocations import Load, allocation
from .budget import Choice, Widths
from .descent import cheapest, hold_against_uniform
from .losses import losses_of
from .uniform import fill, uniform

WINDOW = 6  # how many widths a group may move by at once
ROUNDS = 30
NODES = 100  # of the solver's tree: a limit of time would make plans depend on what else the machine does


@allocation(
    "knapsack",
    "least sum of losses within all budgets at once, by integer programs",
    needs=["positive"],
    uses=["scan"],
    for_speed=True,
    quick=False,
)
def knapsack(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """The widths that lose least within all budgets, by integer programs that scipy's HiGHS solves.

    Losses are those of `losses_of`. What a group uses depends on its neighbours' widths, so each program takes the
    budgets as linear about the present widths, within a few widths of them; it is solved again from the widths found,
    until nothing is gained. It starts from two sets of widths, `uniform`'s and those of the steepest descent. After a
    scan of random inputs `uniform`'s may stay (`hold_against_uniform`).
    """
    losses = losses_of(choices, scores)
    lost = {
        c.group.name: {int(w): losses[c.group.name](int(w)) for w in c.widths}
        for c in choices
        if c.group.name in losses
    }

    if not lost:
        return uniform(choices, scores, load)

    def total(at: Widths) -> float:
        return sum(lost[name][at[name]] for name in lost)

    starts = [cheapest(choices, losses, scores, load), uniform(choices, scores, load)]
    candidates = [_improved(choices, lost, start, load) for start in starts if load(start) <= 1]
    widths = min(candidates, key=total) if candidates else starts[0]
    widths = fill(choices, widths, load, sorted(lost, key=lambda name: -lost[name][widths[name]]))
    return hold_against_uniform(choices, scores, losses, widths, load)


def _improved(choices: list[Choice], lost: Mapping[str, Mapping[int, float]], start: Widths, load: Load) -> Widths:
    """`start`, improved by one integer program after the other."""

    def total(at: Widths) -> float:
        return sum(lost[name][at[name]] for name in lost)

    widths, window = start, WINDOW
    margin = np.zeros(len(load.shares(widths)))
    for _ in range(ROUNDS):
        near = {c.group.name: _near(c, widths[c.group.name], window if c.group.name in lost else 0) for c in choices}
        candidate, expected = _solve(near, lost, widths, load, margin)
        if candidate is None or total(candidate) >= total(widths) - 1e-9:
            if window == 1:
                break
            window, margin = window // 2, 0 * margin
            continue
        shares = load.shares(candidate)
        if shares.max() <= 1:
            widths, margin = candidate, 0 * margin
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
    chosen = result.x > 0.5
    return {**widths, **{name: w for (name, w), t in zip(places, chosen, strict=True) if t}}, here + used @ chosen
