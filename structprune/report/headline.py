"""What a report's page opens with: the speed, the size and the quality, each with its interval, and asked against
reached.

Enters a `Report`; leaves rows of text. It knows nothing of HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from scipy.stats import binomtest

from .records import Quality, Report
from .verdict import NEAR, State, factor_in_words, is_speed_short, quality_state

SHARES = ("accuracy", "agreement")  # metrics of which each sample is right or wrong
KEPT = {"good": "kept", "poor": "lost", "broken": "broken"}


class Figure(NamedTuple):
    """One number that a page opens with.

    Attributes:
        value: The number.
        label: What it is, in two or three words.
        details: Its interval, how many samples it is of, and what it is made of: a line each.
        state: Whether it is good; `open` where nobody can tell.
    """

    value: str
    label: str
    details: tuple[str, ...]
    state: State | Literal["open"]


class Target(NamedTuple):
    """What was asked for, and what was reached.

    Attributes:
        name: Of the amount.
        asked_for: In words.
        reached: In words.
        outcome: `met`, `within its interval` or `missed`; empty where nothing was measured.
    """

    name: str
    asked_for: str
    reached: str
    outcome: str


def headline(report: Report) -> list[Figure]:
    """The three numbers that a page opens with: speed, size and quality.

    Args:
        report: What a run came to.

    Returns:
        Three figures, of which the first says so where nothing was timed.
    """
    return [_speed(report), _size(report), _quality(report)]


def targets(report: Report) -> list[Target]:
    """What was asked for beside what was reached.

    Args:
        report: What a run came to.

    Returns:
        A row for each amount that the recipe asked for.
    """
    return list(_costs(report)) + list(_bounds(report))


def share_interval(value: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score.

    Args:
        value: The share that was measured.
        count: How many samples it is of.

    Returns:
        The bounds of the interval.
    """
    interval = binomtest(round(value * count), count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def is_share(quality: Quality, value: float | None) -> bool:
    """Whether a value of the metric says how many samples were right.

    Args:
        quality: Names the metric and counts the samples.
        value: Of one stage.

    Returns:
        False also where it is not a whole number of samples, as where samples weigh differently.
    """
    if quality.metric not in SHARES or value is None or not 0 <= value <= 1 or quality.images < 1:
        return False
    return math.isclose(value * quality.images, round(value * quality.images), abs_tol=0.01)


def _speed(report: Report) -> Figure:
    latency = report.latency
    if latency is None:
        return Figure("–", "not timed", ("the gate failed: there is no slim network",), "broken")
    low, high = latency.ci95
    factor, remark = factor_in_words(latency.speedup, latency.ci95)
    label = "faster" if low > 1 else "as fast: slower than dense" if high < 1 else "as fast: not shown to be faster"
    threads = f"{latency.threads} thread{'s' if latency.threads != 1 else ''}"
    details = (
        f"95 %: {low:.2f} to {high:.2f}{remark}, n\u00a0=\u00a0{latency.turns} turns",
        f"{latency.dense_ms:.3g} ms to {latency.slim_ms:.3g} ms, {threads}, batch {latency.batch}",
    )
    return Figure(factor, label, details, "poor" if is_speed_short(report) else "good")


def _size(report: Report) -> Figure:
    params, macs = report.params, report.macs
    details = (
        f"{params.dense:,} to {params.slim:,} parameters",
        f"{macs.cut:.2f}× fewer MACs; counted exactly, so without an interval",
    )
    return Figure(f"{params.cut:.2f}×", "smaller", details, "good" if params.slim < params.dense else "poor")


def _quality(report: Report) -> Figure:
    quality, state = report.quality, quality_state(report)
    metric, count = quality.metric, quality.images
    details: tuple[str, ...]
    if quality.random_weights:
        return Figure("–", "quality unknown", ("the weights are random",), "open")
    if not is_share(quality, quality.final):
        direction = "higher" if quality.higher_is_better else "lower"
        label = f"{metric}, {KEPT[state]}: dense {quality.dense:.4f}"
        details = (f"{direction} is better", f"n\u00a0=\u00a0{count} samples; no interval is known")
        return Figure(f"{quality.final:.4f}", label, details, state)
    is_agreement = metric == "agreement"
    label = "agreement with dense" if is_agreement else f"{metric}, {KEPT[state]}: dense {100 * quality.dense:.1f} %"
    low, high = share_interval(quality.final, count)
    number = f"{round(quality.final * count)} of {count} {'alike' if is_agreement else 'right'}"
    details = (f"{number}, 95 %: {100 * low:.1f} to {100 * high:.1f} %",)
    return Figure(f"{100 * quality.final:.1f} %", label, details, state)


def _costs(report: Report) -> Iterator[Target]:
    """Budgets of what is counted, and then of what is timed."""
    budget, groups = report.budget, report.groups
    units = sum(group.units for group in groups)
    is_one_each = all(
        group.units == group.channels for group in groups
    )  # else a unit is several channels, or part of one
    kept = sum(group.kept_channels or 0 for group in groups) if is_one_each else None
    amounts = {
        "MACs": (budget.macs, report.macs.dense, report.macs.slim),
        "parameters": (budget.params, report.params.dense, report.params.slim),
        "channels": (budget.channels, units, kept),
    }
    for name, (asked_for, dense, slim) in amounts.items():
        if asked_for is None:
            continue
        is_share_of_dense = asked_for <= 1
        limit = asked_for * dense if is_share_of_dense else asked_for
        words = f"at most {asked_for:.4g} of dense" if is_share_of_dense else f"at most {asked_for:,.0f}"
        if slim is None:
            yield Target(name, words, "see the widths", "")
            continue
        reached = f"{slim / dense:.4f} of dense" if is_share_of_dense else f"{slim:,}"
        yield Target(name, words, reached, "met" if slim <= limit * (1 + 1e-9) else "missed")
    yield from _times(report)


def _times(report: Report) -> Iterator[Target]:
    budget, latency = report.budget, report.latency
    if budget.speedup is not None:
        words = f"at least {budget.speedup:.4g}×"
        if latency is None:
            yield Target("speedup", words, "not timed", "")
        else:
            low, high = latency.ci95
            factor, remark = factor_in_words(latency.speedup, latency.ci95)
            speedup = low if remark else latency.speedup  # of what is quoted
            is_near = high >= NEAR * budget.speedup
            outcome = "met" if speedup >= budget.speedup else "within its interval" if is_near else "missed"
            yield Target("speedup", words, f"{factor} (95 %: {low:.2f} to {high:.2f}{remark})", outcome)
    if budget.latency_ms is not None:
        words = f"at most {budget.latency_ms:.4g} ms"
        if latency is None:
            yield Target("latency", words, "not timed", "")
        else:
            is_near = latency.slim_ms * NEAR <= budget.latency_ms
            outcome = "met" if latency.slim_ms <= budget.latency_ms else "nearly met" if is_near else "missed"
            yield Target("latency", words, f"{latency.slim_ms:.4g} ms", outcome)


def _bounds(report: Report) -> Iterator[Target]:
    for bound in report.search.bounds if report.search else ():
        limit = "at least" if bound.name == "agreement" else "at most"
        words = f"{limit} {bound.asked:.4g}"
        reached = f"{bound.held_out:.4f} on held-out data"
        yield Target(bound.name.replace("_", " "), words, reached, "met" if bound.met else "missed")
