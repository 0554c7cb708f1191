"""What came of a run, in a sentence: faster, smaller, quality kept or lost, against what was asked."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..runtimes import pace

NEAR = 0.97  # of a speedup that was asked for: planning stops there
SURE = 2.0  # standard errors of the difference of two shares, which chance alone seldom passes
BROKEN = 0.5  # of the dense network's quality: less is no network that anybody would use
ALIKE = 0.9  # likeness to the dense network under which an unlabelled run says that quality is lost


@dataclass(frozen=True)
class Verdict:
    """`state` is `good`, `poor` (slower, quality lost, or short of what was asked) or `broken`; `text` says it all."""

    state: str
    text: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def verdict_of(report: dict[str, Any]) -> Verdict:
    """The verdict on a finished run.

    Args:
        report: what report.json holds: `latency`, `params`, `macs`, `quality`, `budget` and `gate` are looked at.

    Returns:
        The verdict. A difference of accuracies counts as lost where it is larger than two standard errors.
    """
    if not report["gate"]["passed"]:
        return Verdict("broken", "not proven: the gate failed, and there is no slim network")
    speed, is_fast = _speed(report)
    quality, state = _quality(report["quality"])
    search = report.get("search")
    if search and state != "broken":
        quality, state = _bounded(quality, search["bounds"])
    size = f"{report['params']['cut']:.1f}× smaller, {report['macs']['cut']:.1f}× fewer MACs"
    held = _held(search) if search else ""
    missed = state == "broken" or (bool(search) and state == "poor")
    parts = (quality, speed, size, held) if missed else (speed, size, held, quality)
    is_short = not is_fast or bool(search and _falls_short(search))
    worst = "poor" if state == "good" and is_short else state
    return Verdict(worst, "; ".join(part for part in parts if part))


def _speed(report: dict[str, Any]) -> tuple[str, bool]:
    """What was measured, and whether it is faster, and as fast as was asked."""
    latency = report["latency"]
    if latency is None:
        return "", True
    speedup, (low, high) = latency["speedup"], latency["ci95"]
    if slower := pace("dense", "slim", speedup, latency["ci95"]):
        return slower, False
    if low <= 1:
        return f"not shown to be faster: {speedup:.2f}× (95 %: {low:.2f} to {high:.2f})", False
    text = f"{speedup:.2f}× faster (95 %: {low:.2f} to {high:.2f})"
    budget = report["budget"]
    asked = max(budget.get("speedup", 0.0), latency["dense_ms"] / budget.get("latency_ms", math.inf))
    if high < NEAR * asked:
        return f"{text}, short of the {asked:.2f}× asked for", False
    return text, True


def _bounded(quality: str, bounds: list[dict[str, Any]]) -> tuple[str, str]:
    """Quality against the bounds that were asked for, and the state that this is."""
    missed = [bound for bound in bounds if not bound["met"]]
    numbers = quality.split(": ", 1)[-1]
    told = ", ".join(
        f"{bound['name'].replace('_', ' ')} {bound['held_out']:.4f} where {bound['asked']:g} was asked for"
        for bound in missed or bounds
    )
    return f"quality bound {'missed' if missed else 'met'}: {told} ({numbers})", "poor" if missed else "good"


def _costs(search: dict[str, Any]) -> dict[str, float]:
    """The costs that were asked for beside the bounds of quality."""
    bounded = {bound["name"] for bound in search["bounds"]}
    return {name: value for name, value in search["asked"].items() if name not in bounded}


def _falls_short(search: dict[str, Any]) -> bool:
    return search["held"] == "quality" and bool(_costs(search))


def _held(search: dict[str, Any]) -> str:
    """Which bound stopped the cut."""
    if search["held"] == "cost":
        return "the cost that was asked for, within the quality that was"
    tried = len(search["trials"])
    if not _costs(search):
        return f"the smallest within the quality bound, of {tried} networks tried"
    pairs = ((name, value, search["budget"][name]) for name, value in _costs(search).items())
    told = ", ".join(f"{name} {near:.4g} where {value:g} was asked for" for name, value, near in pairs)
    return f"no nearer within the quality bound than {told}, of {tried} networks tried"


def _quality(quality: dict[str, Any]) -> tuple[str, str]:
    """What is left of it, and the state that this is."""
    metric, count, dense, final = (quality[key] for key in ("metric", "images", "dense", "final"))
    if quality.get("random_weights"):
        return "quality unknown: the weights are random", "good"
    if math.isnan(final):
        return f"{metric} broken: {dense:.4f} to {final} on {count} images", "broken"
    if "random_weights" in quality:
        return _likeness(quality)
    lost = dense - final if quality.get("higher_is_better", True) else final - dense
    numbers = f"{dense:.4f} to {final:.4f} on {count} images"
    if dense > 0 and quality.get("higher_is_better", True) and final < BROKEN * dense:
        return f"{metric} broken: {numbers}", "broken"
    if lost > SURE * _error(dense, final, count):
        return f"{metric} lost: {numbers}", "poor"
    return f"{metric} kept: {numbers}", "good"


def _likeness(quality: dict[str, Any]) -> tuple[str, str]:
    """Without labels: how near to the dense network, whose own figure is exact, so that no chance is allowed for."""
    metric, count, dense, final = (quality[key] for key in ("metric", "images", "dense", "final"))
    is_error = not quality.get("higher_is_better", True)  # of which the dense network has none
    share = 1 - final if is_error else final / dense if dense > 0 else final
    state = "broken" if share < BROKEN else "poor" if share < ALIKE else "good"
    text = f"{metric}: {dense:.4f} to {final:.4f} on {count} images"
    if metric == "agreement":
        text = f"agrees with the dense network on {final:.1%} of {count} images"
    return (f"quality lost: {text}" if state != "good" else text), state


def _error(dense: float, final: float, count: int) -> float:
    """The standard error of the difference of two shares of `count`; a hundredth of what is no share."""
    if not (0 <= dense <= 1 and 0 <= final <= 1):
        return 0.01 * abs(dense) / SURE
    return math.sqrt((dense * (1 - dense) + final * (1 - final)) / max(count, 1))
