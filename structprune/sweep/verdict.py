"""What the differences between arms come to, in words."""

from __future__ import annotations

from collections.abc import Iterator

from .differences import ALPHA
from .records import Difference, Family, SweepReport
from .spread import shown_spread


def verdict_lines(report: SweepReport) -> list[str]:
    """Says which differences exceed the spread over seeds, and which do not.

    Args:
        report: The sweep.

    Returns:
        A line on how arms were compared, if they were, then some on each family of arms.
    """
    lines = [line for family in report.families for line in _family_lines(family, len(report.seeds))]
    if not any(each.p is not None for family in report.families for each in family.differences):
        return lines
    how = (
        "Differences within each seed, by a paired t-test with Holm's correction for the pairs at one budget; "
        f"one exceeds the spread where p < {ALPHA:g}."
    )
    return [how, *lines]


def _family_lines(family: Family, seeds: int) -> Iterator[str]:
    tested = [each for each in family.differences if each.p is not None]
    if not tested:
        yield f"{family.name}: no two arms share two seeds, so nothing can be said of their differences."
        return
    if not family.references:
        count = sum(bool(each.exceeds) for each in tested)
        yield (
            f"{family.name}: {family.best} has the best mean {family.metric}. Of {len(family.differences)} pairs, "
            f"{count} {'differs' if count == 1 else 'differ'} by more than the spread."
        )
    for anchor in family.references or [family.best]:
        own = [each for each in family.differences if anchor in (each.better, each.worse)]
        better = [each for each in own if each.exceeds and each.worse == anchor]
        worse = [each for each in own if each.exceeds and each.better == anchor]
        rest = [each for each in own if not each.exceeds]
        parts = [
            f"{what}: {', '.join(_one(each, anchor, seeds) for each in group)}"
            for what, group in (("better", better), ("worse", worse), ("not told apart", rest))
            if group
        ]
        if parts:
            yield f"{family.name}, beside {anchor}: {'; '.join(parts)}."


def _one(difference: Difference, anchor: str, seeds: int) -> str:
    """The other arm of a difference, and by how much its mean is above (+) or below (−) the anchor's, as the better."""
    is_better = difference.worse == anchor
    name = difference.better if is_better else difference.worse
    if difference.by is None or difference.p_holm is None:
        return f"{name} ({_count(difference.n)} in common)"
    more = "" if difference.n == seeds else f", {_count(difference.n)}"
    sign = "+" if is_better else "−"
    return f"{name} ({sign}{shown_spread(difference.by, 4)}, p {_p(difference.p_holm)}{more})"


def _count(seeds: int) -> str:
    return f"{seeds} seed{'' if seeds == 1 else 's'}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"
