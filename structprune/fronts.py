"""Pareto fronts: what nothing else beats in both quality and cost."""

from __future__ import annotations

import math
from collections.abc import Iterable


def front_of(points: Iterable[tuple[float, float, str]]) -> list[str]:
    """Finds the points whose quality no point that is as cheap or cheaper reaches.

    Args:
        points: A cost, a quality of which more is better, and a name each.

    Returns:
        Their names, the cheapest first.
    """
    front: list[str] = []
    best = math.inf
    for _, loss, name in sorted((cost, -quality, name) for cost, quality, name in points):
        if loss < best:
            front.append(name)
            best = loss
    return front
