"""`sweep`: all runs of a sweep into a folder, and what came of them."""

from __future__ import annotations

import time
from pathlib import Path

from ..errors import RecipeError
from ..extras import need
from ..launch import refuse_several
from ..progress import Reporter
from .files import write_files
from .folder import SweepFolder
from .processes import Ending, Executor, on_this_machine
from .reading import Run, Sweep, read_sweep
from .records import FailedRun, FinishedRun, SweepReport
from .summary import finished_run, sweep_report
from .timing import timed_runs

Outcome = FinishedRun | FailedRun


def sweep(
    path: str | Path,
    out: str | Path | None = None,
    *,
    executor: Executor | None = None,
    reporter: Reporter | None = None,
) -> SweepReport:
    """Runs a sweep into a folder, or goes on with it there.

    What several runs need alike, such as the dense network trained with one seed, is made once: they share a store.

    Args:
        path: The sweep's file.
        out: The folder; by default runs/NAME, NAME being the file's.
        executor: Runs the jobs; by default one after another in processes on this machine.
        reporter: Shows progress; by default on standard error.

    Returns:
        What sweep.json holds. Runs that failed stand in `failures`.

    Raises:
        RecipeError: The file, or the recipe of an arm, has mistakes, or the folder can't take this sweep; before any
            run.
    """
    refuse_several("a sweep")
    reporter = reporter or Reporter()
    checked = read_sweep(path, reporter.stage)
    need("a sweep's picture", "report")
    if out is not None and not str(out).strip():
        raise RecipeError("the output folder's name is empty: give one by --out, or leave it out for runs/NAME")
    folder = SweepFolder(Path(out) if out is not None else Path("runs") / checked.name)
    folder.claim(checked)
    with folder.held():
        folder.open(checked)
        outcomes = _outcomes(checked, folder, executor or on_this_machine(1), reporter)
        finished = [outcome for outcome in outcomes if isinstance(outcome, FinishedRun)]
        failed = [outcome for outcome in outcomes if isinstance(outcome, FailedRun)]
        report = sweep_report(checked, timed_runs(checked, finished, folder.path, reporter), failed)
        write_files(report, folder.path)
        return report


def _outcomes(checked: Sweep, folder: SweepFolder, executor: Executor, reporter: Reporter) -> list[Outcome]:
    """What came of each run, in order, of those that had finished before too."""
    outcomes = {run.name: outcome for run in checked.runs if (outcome := _outcome(run, folder)) is not None}
    runs = {run.name: run for run in checked.runs if run.name not in outcomes}
    reporter.stage(
        f"{checked.name}: {len(checked.arms)} arms, {len(checked.runs)} runs"
        + (f", {len(outcomes)} of them finished before" if outcomes else "")
    )
    start, count = time.monotonic(), 0
    for job, ending in executor([folder.job(run) for run in runs.values()]):
        run, count = runs[job.name], count + 1
        outcome = _outcome(run, folder) or FailedRun(
            arm=run.arm.name, seed=run.seed, folder=run.name, error=folder.error(run, ending)
        )
        outcomes[run.name] = outcome
        left = (time.monotonic() - start) / count * (len(runs) - count)
        reporter.stage(_line(outcome, ending, len(outcomes), len(checked.runs), left))
    return [outcomes[run.name] for run in checked.runs]


def _outcome(run: Run, folder: SweepFolder) -> Outcome | None:
    """What came of a run that has a report; None of one that has none."""
    report = folder.report(run)
    if report is None:
        return None
    if report.gate.passed:
        return finished_run(run, report)
    error = f"the slim network is not the one planned: see {run.name}/report.json"
    return FailedRun(arm=run.arm.name, seed=run.seed, folder=run.name, error=error)


def _line(outcome: Outcome, ending: Ending, count: int, total: int, left: float) -> str:
    """A line on a run that ended."""
    text = f"{count}/{total} {outcome.arm}, seed {outcome.seed}: "
    if isinstance(outcome, FailedRun):
        text += f"failed, {outcome.error}"
    else:
        text += (
            f"{outcome.metric} {outcome.quality:.4f} (dense {outcome.dense:.4f}), "
            f"{outcome.dense_macs / outcome.macs:.2f}× fewer MACs, {outcome.speedup:.2f}× as fast"
        )
    return f"{text}; {_time(ending.seconds)}" + (f", about {_time(left)} left" if count < total else "")


def _time(seconds: float) -> str:
    """A time as it is read: 8 s, 3:20 min, 2:05 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes}:{round(seconds) % 60:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"
