"""What came of a run, in a sentence: faster, smaller, quality kept or lost, against what was asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from ..runtimes import pace
from ..runtimes.timing_statistics import is_too_wide
from .records import Bound, Quality, Report, Search, Verdict

NEAR = 0.97  # of a speedup that was asked for: planning stops there
SURE = 2.0  # standard errors of the difference of two shares, which chance alone seldom passes
FEW = 0.05  # of the dense network's metric: a larger loss is not called kept, however few images there are
BROKEN = 0.5  # of the dense network's quality: less is no network that anybody would use
ALIKE = 0.9  # likeness to the dense network under which an unlabelled run says that quality is lost
State = Literal["good", "poor", "broken"]


def verdict_of(report: Report) -> Verdict:
    """The verdict on a finished run.

    Args:
        report: `latency`, `params`, `macs`, `quality`, `budget`, `search` and `gate` are looked at.

    Returns:
        The verdict. A difference of accuracies counts as lost where it is larger than two standard errors.
    """
    if not report.gate.passed:
        return Verdict(state="broken", text="not proven: the gate failed, and there is no slim network")
    speed, is_fast = _speed(report)
    quality, state = _quality(report.quality)
    if report.finetuning and report.finetuning.start != "slim":
        quality += f", {report.finetuning.of_what()}"
    search = report.search
    if search and state != "broken":
        quality, state = _bounded(quality, search.bounds)
    size = f"{report.params.cut:.1f}× smaller, {report.macs.cut:.1f}× fewer MACs"
    held = _held(search) if search else ""
    is_missed = state == "broken" or (search is not None and state == "poor")
    parts = (quality, speed, size, held) if is_missed else (speed, size, held, quality)
    is_short = not is_fast or (search is not None and _falls_short(search))
    return Verdict(
        state="poor" if state == "good" and is_short else state, text="; ".join(part for part in parts if part)
    )


def quality_state(report: Report) -> State:
    """Whether quality is kept: within the bounds that were asked for, else as `verdict_of` judges it.

    Args:
        report: `quality` and `search` are looked at.

    Returns:
        `good` where it is kept, `poor` where it is lost, `broken` where less than half of it is left.
    """
    state = _quality(report.quality)[1]
    if report.search and state != "broken":
        return _bounded("", report.search.bounds)[1]
    return state


def is_speed_short(report: Report) -> bool:
    """Whether the network was timed, and is not shown to be faster, or not as fast as was asked.

    Args:
        report: `latency` and `budget` are looked at.

    Returns:
        False where nothing was timed.
    """
    return not _speed(report)[1]


def factor_in_words(speedup: float, ci95: Sequence[float]) -> tuple[str, str]:
    """What may be quoted of a speedup: its median, or the least it is where the interval is too wide for that.

    Args:
        speedup: The median.
        ci95: Its 95 % interval.

    Returns:
        The factor, and what is to follow the bounds of the interval.
    """
    low = ci95[0]
    if low > 1 and is_too_wide(speedup, ci95):
        return f"at least {low:.2f}×", "; too wide to quote a factor"
    return f"{speedup:.2f}×", ""


def _speed(report: Report) -> tuple[str, bool]:
    """What was measured, and whether it is faster, and as fast as was asked."""
    latency = report.latency
    if latency is None:
        return "", True
    speedup, (low, high) = latency.speedup, latency.ci95
    if slower := pace("dense", "slim", speedup, latency.ci95):
        return slower, False
    if low <= 1:
        return f"not shown to be faster: {speedup:.2f}× (95 %: {low:.2f} to {high:.2f})", False
    factor, remark = factor_in_words(speedup, latency.ci95)
    text = f"{factor} faster (95 %: {low:.2f} to {high:.2f}{remark})"
    budget = report.budget
    target = max(budget.speedup or 0.0, latency.dense_ms / (budget.latency_ms or math.inf))
    if high < NEAR * target:
        return f"{text}, short of the {target:.2f}× asked for", False
    if low < NEAR * target and (speedup < NEAR * target or is_too_wide(speedup, latency.ci95)):
        return f"{text}, which does not show the {target:.2f}× asked for", False
    if round(speedup, 2) < round(target, 2):
        return f"{text}, within {100 * (1 - NEAR):.0f} % of the {target:.2f}× asked for", True
    return text, True


def _bounded(quality: str, bounds: Sequence[Bound]) -> tuple[str, State]:
    """Quality against the bounds that were asked for, and the state that this is."""
    missed = [bound for bound in bounds if not bound.met]
    numbers = quality.split(": ", 1)[-1]
    outcome = ", ".join(
        f"{bound.name.replace('_', ' ')} {bound.held_out:.4f} where {bound.asked:g} was asked for"
        for bound in missed or bounds
    )
    return f"quality bound {'missed' if missed else 'met'}: {outcome} ({numbers})", "poor" if missed else "good"


def _costs(search: Search) -> dict[str, float]:
    """The costs that were asked for beside the bounds of quality."""
    bounded = {bound.name for bound in search.bounds}
    return {name: value for name, value in search.asked.asked().items() if name not in bounded}


def _falls_short(search: Search) -> bool:
    return search.held == "quality" and bool(_costs(search))


def _held(search: Search) -> str:
    """Which bound stopped the cut."""
    if search.held == "cost":
        return "the cost that was asked for, within the quality that was"
    count = len(search.trials)
    if not _costs(search):
        return f"the smallest within the quality bound, of {count} networks tried"
    reached = search.budget.asked()
    pairs = ", ".join(
        f"{name} {reached[name]:.4g} where {value:g} was asked for" for name, value in _costs(search).items()
    )
    return f"no nearer within the quality bound than {pairs}, of {count} networks tried"


def _quality(quality: Quality) -> tuple[str, State]:
    """What is left of it, and the state that this is."""
    metric, count, dense, final = quality.metric, quality.images, quality.dense, quality.final
    if quality.random_weights:
        return "quality unknown: the weights are random", "good"
    if math.isnan(final):
        return f"{metric} broken: {dense:.4f} to {final} on {count} images", "broken"
    if quality.random_weights is not None:
        return _likeness(quality)
    lost = dense - final if quality.higher_is_better else final - dense
    numbers = f"{dense:.4f} to {final:.4f} on {count} images"
    if dense > 0 and quality.higher_is_better and final < BROKEN * dense:
        return f"{metric} broken: {numbers}", "broken"
    if lost > SURE * _error(dense, final, count):
        return f"{metric} lost: {numbers}", "poor"
    if lost > FEW * abs(dense):  # what so few images can't tell from chance is not kept for that
        return f"{metric} may be lost: {numbers}, too few to tell", "poor"
    return f"{metric} kept: {numbers}", "good"


def _likeness(quality: Quality) -> tuple[str, State]:
    """Without labels: how near to the dense network, whose own figure is exact, so that no chance is allowed for."""
    metric, count, dense, final = quality.metric, quality.images, quality.dense, quality.final
    is_error = not quality.higher_is_better  # of which the dense network has none
    share = 1 - final if is_error else final / dense if dense > 0 else final
    state: State = "broken" if share < BROKEN else "poor" if share < ALIKE else "good"
    text = f"{metric}: {dense:.4f} to {final:.4f} on {count} images"
    if metric == "agreement":
        text = f"agrees with the dense network on {final:.1%} of {count} images"
    return (f"quality lost: {text}" if state != "good" else text), state


def _error(dense: float, final: float, count: int) -> float:
    """The standard error of the difference of two shares of `count`; a hundredth of what is no share."""
    if not (0 <= dense <= 1 and 0 <= final <= 1):
        return 0.01 * abs(dense) / SURE
    return math.sqrt((dense * (1 - dense) + final * (1 - final)) / max(count, 1))
