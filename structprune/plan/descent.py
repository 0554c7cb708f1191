"""The steepest descent over losses: the group that loses least for what it saves is narrowed, again and again."""

from __future__ import annotations

import heapq
import math

import numpy as np

from ..records import Scores
from .allocations import Load, allocation
from .budget import Choice, Widths
from .losses import Losses, is_plain_gain, losses_of
from .uniform import fill, uniform

STEPS = 48  # the most steps in which a group is narrowed
LOOKAHEAD = 3  # how many of them are weighed at once: a runtime may not gain by each


@allocation("sensitivity", "least sum of losses, by a scan of them", needs=["scan"], for_speed=True)
def sensitivity(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """The widths whose losses, by a scan of one group at a time, have the least sum within the budget.

    Losses are those of `losses_of`; the group whose next step costs the least for what it saves of the budget is
    narrowed, again and again. Groups without a measurement stay whole. After a scan of random inputs the widths may be
    `uniform`'s (`hold_against_uniform`).
    """
    losses = losses_of(choices, scores)
    return hold_against_uniform(choices, scores, losses, cheapest(choices, losses, scores, load), load)


def hold_against_uniform(choices: list[Choice], scores: Scores, losses: Losses, widths: Widths, load: Load) -> Widths:
    """The widths; after a scan of random inputs `uniform`'s, unless these lose plainly less (`is_plain_gain`)."""
    if scores.sensitivity is None or scores.sensitivity.inputs == "samples":
        return widths
    even = uniform(choices, scores, load)
    return widths if load(even) > 1 or is_plain_gain(scores.sensitivity, losses, widths, even) else even


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
