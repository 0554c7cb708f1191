"""The Pareto fronts of a sweep: the arms that no other one beats both in quality and in cost."""

from __future__ import annotations

from collections.abc import Sequence

from ..fronts import front_of
from .records import ArmSummary, Fronts


def fronts_of(arms: Sequence[ArmSummary]) -> Fronts:
    """Finds the arms whose mean quality no arm that is as cheap or cheaper reaches.

    Args:
        arms: The arms of a sweep. Those of another metric than the first one's are left out.

    Returns:
        Their names, the cheapest first.
    """
    return Fronts(macs=_front(arms, "macs"), ms=_front(arms, "ms"))


def _front(arms: Sequence[ArmSummary], cost: str) -> list[str]:
    known = [arm for arm in arms if arm.quality is not None]
    points = []
    for arm in known:
        if arm.metric == known[0].metric:
            assert arm.quality is not None
            quality = arm.quality.mean if arm.higher_is_better else -arm.quality.mean
            points.append((getattr(arm, cost).mean, quality, arm.arm))
    return front_of(points)
