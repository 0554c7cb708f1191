"""Which of several runs is faster, and which is better, as far as intervals tell; and when nobody can say.

Enters the records of runs; leaves rankings, and the sentence that a comparison opens with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ..json_records import Interval
from ..report.headline import SHARES
from ..report.verdict import factor_in_words
from .run_records import ComparedRun, Ranking

APART = 12.0  # hours between two timings from which the machine may be another in all but its name
MACHINE = ("processor", "instructions", "cores")
MANY = 4  # names, over which they are counted
SETTING = ("device", "threads", "batch")


class Measured(NamedTuple):
    """A number of a run, with its 95 % interval where one is known."""

    name: str
    value: float | None
    ci95: Interval | None


class Stated(NamedTuple):
    """A number as it is told."""

    name: str
    value: float
    text: str


def rank_speed(runs: Sequence[ComparedRun]) -> Ranking:
    """Ranks runs by how fast their slim networks were measured to be.

    Args:
        runs: Two or more.

    Returns:
        By the speedup over the dense network where all have the same one, else by milliseconds.
    """
    if reason := why_speeds_differ(runs):
        return Ranking(measure="speedup", best=None, apart=[], overlap=[], unknown=[], reason=reason)
    timed = [(run.name, run.latency) for run in runs if run.latency is not None]
    if has_same_dense(runs) and len({(latency.runtime, latency.dtype) for _, latency in timed}) == 1:
        speedups = [Measured(name, latency.speedup, latency.ci95) for name, latency in timed]
        return ranked("speedup", speedups, higher_is_better=True)
    times = [Measured(name, latency.slim_ms, latency.slim_ms_ci95) for name, latency in timed]
    return ranked("ms", times, higher_is_better=False)


def rank_quality(runs: Sequence[ComparedRun], recipes: Sequence[Mapping[str, Any]]) -> Ranking:
    """Ranks runs by the metric of their slim networks.

    Args:
        runs: Two or more.
        recipes: What each was asked for, by dotted keys.

    Returns:
        The ranking.
    """
    first = runs[0]
    if reason := why_qualities_differ(runs, recipes):
        return Ranking(measure=first.metric, best=None, apart=[], overlap=[], unknown=[], reason=reason)
    values = [Measured(run.name, run.final.value, run.final.ci95) for run in runs]
    return ranked(first.metric, values, first.higher_is_better)


def has_same_dense(runs: Sequence[ComparedRun]) -> bool:
    """Whether all runs prune the same network, though its weights may differ.

    Args:
        runs: One or more.

    Returns:
        Whether its name, multiply-adds and parameters are the same.
    """
    return len({(run.model, run.macs.dense, run.params.dense) for run in runs}) == 1


def why_speeds_differ(runs: Sequence[ComparedRun]) -> str:
    """Why the speeds of runs do not compare.

    Args:
        runs: Two or more.

    Returns:
        The reason in words; empty where they do.
    """
    timed = [run for run in runs if run.latency is not None]
    if len(timed) < len(runs):
        names = [run.name for run in runs if run.latency is None]
        return f"{listed(names, 'runs')} {'was' if len(names) == 1 else 'were'} not timed"
    for field in MACHINE:
        values = list(dict.fromkeys(str(getattr(run.environment, field)) for run in runs))
        if len(values) > 1:
            return f"they were measured on different machines ({field}: {' and '.join(values[:2])})"
    for field in SETTING:
        values = list(dict.fromkeys(str(getattr(run.latency, field)) for run in runs))
        if len(values) > 1:
            return f"they were measured in different settings ({field}: {' and '.join(values[:2])})"
    unknown = [run.name for run in runs if run.measured is None]
    if unknown:
        return f"it is not known when {listed(unknown, 'runs')} {'was' if len(unknown) == 1 else 'were'} measured"
    times = sorted(datetime.fromisoformat(run.measured) for run in runs if run.measured)
    if (times[-1] - times[0]).total_seconds() > APART * 3600:
        return f"they were measured at different times ({times[0]:%Y-%m-%d %H:%M} and {times[-1]:%Y-%m-%d %H:%M} UTC)"
    return ""


def why_qualities_differ(runs: Sequence[ComparedRun], recipes: Sequence[Mapping[str, Any]]) -> str:
    """Why the qualities of runs do not compare.

    Args:
        runs: Two or more.
        recipes: What each was asked for, by dotted keys.

    Returns:
        The reason in words; empty where they do.
    """
    metrics = list(dict.fromkeys(run.metric for run in runs))
    if len(metrics) > 1:
        return f"they have different metrics ({' and '.join(metrics)})"
    keys = sorted({key for recipe in recipes for key in recipe if key.startswith(("data.", "task."))})
    for key in keys:
        values = list(dict.fromkeys(str(recipe.get(key)) for recipe in recipes if recipe))
        if not key.startswith("data.calibration") and len(values) > 1:
            return f"they were judged on different data ({key}: {' and '.join(values[:2])})"
    counts = list(dict.fromkeys(str(run.images) for run in runs))
    if len(counts) > 1:
        return f"they were judged on different data ({' and '.join(counts[:2])} samples)"
    if untrained := [run.name for run in runs if run.random_weights]:
        return f"the weights of {listed(untrained, 'runs')} are random"
    if first := next((run.name for run in runs if run.final.value is None), ""):
        return f"{first} has no finite value"
    return ""


def verdict_on(runs: Sequence[ComparedRun], speed: Ranking, quality: Ranking) -> str:
    """The sentence that a comparison opens with.

    Args:
        runs: Two or more.
        speed: Their ranking by speed.
        quality: Their ranking by quality.

    Returns:
        Which is faster and which is better, as far as it can be told.
    """
    failed = [run.name for run in runs if not run.gate_passed]
    parts = [f"the gate of {listed(failed, 'runs')} failed"] if failed else []
    is_ms = speed.measure == "ms"
    speeds = [
        Stated(run.name, run.latency.slim_ms if is_ms else run.latency.speedup, speed_text(run, speed.measure))
        for run in runs
        if run.latency is not None
    ]
    qualities = [Stated(run.name, run.final.value or 0.0, quality_text(run, quality.measure)) for run in runs]
    return "; ".join([*parts, clause("speed", speed, speeds), clause(quality.measure, quality, qualities)])


def speed_text(run: ComparedRun, measure: str) -> str:
    """A run's speed in words.

    Args:
        run: One that was timed.
        measure: `speedup` or `ms`.

    Returns:
        A factor, or milliseconds.
    """
    if run.latency is None:
        return "not timed"
    if measure == "ms":
        return f"{run.latency.slim_ms:.3g} ms"
    return factor_in_words(run.latency.speedup, run.latency.ci95)[0]


def quality_text(run: ComparedRun, measure: str) -> str:
    """A run's quality in words.

    Args:
        run: The run.
        measure: The metric.

    Returns:
        A percentage, or a number.
    """
    value = run.final.value
    if value is None:
        return "not finite"
    return f"{100 * value:.1f} %" if measure in SHARES else f"{value:.4f}"


def ranked(measure: str, values: Sequence[Measured], higher_is_better: bool) -> Ranking:
    """Ranks what was measured.

    Args:
        measure: What it is called.
        values: One or more, of which one is finite.
        higher_is_better: Whether more of it is better.

    Returns:
        The ranking.
    """
    sign = 1.0 if higher_is_better else -1.0
    known = [entry for entry in values if entry.value is not None and math.isfinite(entry.value)]
    best = max(known, key=lambda entry: sign * (entry.value or 0.0))
    groups: dict[str, list[str]] = {"apart": [], "overlap": [], "unknown": []}
    for entry in values:
        if entry is not best:
            groups[_beside(entry, best, higher_is_better)].append(entry.name)
    apart, overlap, unknown = groups.values()
    return Ranking(measure=measure, best=best.name, apart=apart, overlap=overlap, unknown=unknown)


def _beside(entry: Measured, best: Measured, higher_is_better: bool) -> str:
    if entry.ci95 is None or best.ci95 is None:
        return "unknown"
    is_apart = entry.ci95[1] < best.ci95[0] if higher_is_better else entry.ci95[0] > best.ci95[1]
    return "apart" if is_apart else "overlap"


def clause(subject: str, ranking: Ranking, stated: Sequence[Stated]) -> str:
    """What a ranking says, of two or of more.

    Args:
        subject: `speed`, or the metric's name.
        ranking: The ranking.
        stated: What was measured of each, as it is to be told.

    Returns:
        A part of a sentence.
    """
    if ranking.best is None:
        return f"{subject} is not compared: {ranking.reason}"
    values = {entry.name: entry.text for entry in stated}
    more, most = ("faster", "the fastest") if subject == "speed" else ("better", "the best")
    unit = {"speedup": " as fast as dense", "ms": " a pass"}.get(ranking.measure, "")
    best, others = ranking.best, [name for name in values if name != ranking.best]
    amounts = f"{subject} " if subject != "speed" else ""
    if len({*values.values()}) == 1 and not ranking.apart:
        return f"{subject} is the same in {'all' if len(values) > 2 else 'both'}: {values[best]}{unit}"
    if len(others) == 1:
        if ranking.apart:
            return f"{best} is {more}: {amounts}{values[best]} against {values[others[0]]}{unit}, intervals apart"
        if ranking.unknown:
            pair = f"{values[best]} against {values[others[0]]}{unit}"
            return f"{best} has the better {subject}, {pair}; no interval is known"
        both = [f"{name} {text}" for name, text in values.items()]
        return f"{subject} is not told apart: {' and '.join(both)}{unit}, intervals overlap"
    if not ranking.apart and not ranking.unknown:
        least, *_, largest = (entry.text for entry in sorted(stated, key=lambda entry: entry.value))
        return f"{subject} is not told apart: from {least} to {largest}{unit}, intervals overlap"
    parts = [f"{best} is {most} of {len(values)}: {amounts}{values[best]}{unit}"]
    if len(ranking.apart) == len(others):
        parts.append("its interval apart from all others")
    elif ranking.apart:
        parts.append(f"its interval apart from those of {listed(ranking.apart)}")
    parts += [f"not told apart from {listed(ranking.overlap)}"] * bool(ranking.overlap)
    parts += [f"no interval is known of {listed(ranking.unknown)}"] * bool(ranking.unknown)
    return ", ".join(parts)


def listed(names: Sequence[str], counted: str = "others") -> str:
    """Names in a sentence; many are counted.

    Args:
        names: One or more.
        counted: What they are called where they are counted.

    Returns:
        The text.
    """
    if len(names) > MANY:
        return f"{len(names)} {counted}"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
