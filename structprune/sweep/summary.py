"""From the reports of runs to a sweep's own: each run in a line, each arm over its seeds."""

from __future__ import annotations

from collections.abc import Sequence

from ..report import Report
from ..runtimes import environment
from .arms import Arm
from .differences import families_of
from .fronts import fronts_of
from .reading import Run, Sweep
from .records import SCHEMA, ArmSummary, FailedRun, FinishedRun, RoundSummary, SweepReport
from .spread import spread

_NUMBERS = ("dense", "quality", "macs", "params", "ms", "speedup")  # of a run, whose spread an arm has


def finished_run(run: Run, report: Report) -> FinishedRun:
    """Takes from a run's report what a sweep needs.

    Args:
        run: The run.
        report: Its report, of a network that passed the gate.

    Returns:
        The record.
    """
    quality, latency = report.quality, report.latency
    assert latency is not None  # as the gate passed
    return FinishedRun(
        arm=run.arm.name,
        seed=run.seed,
        folder=run.name,
        metric=quality.metric,
        higher_is_better=quality.higher_is_better,
        dense=quality.dense,
        quality=quality.final,
        dense_macs=report.macs.dense,
        macs=report.macs.slim,
        dense_params=report.params.dense,
        params=report.params.slim,
        dense_ms=latency.dense_ms,
        ms=latency.slim_ms,
        speedup=latency.speedup,
        rounds=report.rounds,
    )


def sweep_report(sweep: Sweep, runs: Sequence[FinishedRun], failures: Sequence[FailedRun]) -> SweepReport:
    """Sums a sweep up.

    Args:
        sweep: The sweep.
        runs: Its runs that finished.
        failures: Those that failed.

    Returns:
        What sweep.json holds.
    """
    arms = [_summary(arm, runs, failures) for arm in sweep.arms]
    return SweepReport(
        schema=SCHEMA,
        name=sweep.name,
        seeds=list(sweep.spec.seeds),
        arms=arms,
        fronts=fronts_of(arms),
        families=families_of(sweep, runs),
        runs=list(runs),
        failures=list(failures),
        environment=environment(),
    )


def _summary(arm: Arm, runs: Sequence[FinishedRun], failures: Sequence[FailedRun]) -> ArmSummary:
    own = [run for run in runs if run.arm == arm.name]
    spreads = {name: spread([getattr(run, name) for run in own]) if own else None for name in _NUMBERS}
    cut = spread([run.dense_macs / run.macs for run in own]) if own else None
    return ArmSummary(
        arm=arm.name,
        labels=arm.labels,
        settings=arm.settings,
        n=len(own),
        failed=sum(failure.arm == arm.name for failure in failures),
        metric=own[0].metric if own else None,
        higher_is_better=own[0].higher_is_better if own else None,
        cut=cut,
        rounds=_rounds(own),
        **spreads,
    )


def _rounds(runs: Sequence[FinishedRun]) -> list[RoundSummary]:
    """Each round of the runs of an arm, over those that went as far."""
    return [
        _round(number, [run for run in runs if len(run.rounds) >= number])
        for number in range(1, max((len(run.rounds) for run in runs), default=0) + 1)
    ]


def _round(number: int, runs: Sequence[FinishedRun]) -> RoundSummary:
    rounds = [run.rounds[number - 1] for run in runs]
    recovered = [entry.recovered for entry in rounds if entry.recovered is not None]
    return RoundSummary(
        round=number,
        n=len(runs),
        cut=spread([run.dense_macs / entry.macs for run, entry in zip(runs, rounds, strict=True)]),
        params=spread([run.dense_params / entry.params for run, entry in zip(runs, rounds, strict=True)]),
        pruned=spread([entry.pruned for entry in rounds]),
        recovered=spread(recovered) if recovered else None,
        final=spread([entry.final for entry in rounds]),
    )
