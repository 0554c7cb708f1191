"""The networks of a sweep, timed in the end, when none of its runs is at work and slows a timing down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..json_records import read_record
from ..progress import Reporter
from ..recipe import Recipe
from ..runtimes import benchmark
from ..store import atomic_files
from .reading import Sweep
from .records import ArmTiming, FinishedRun


def timed_runs(sweep: Sweep, runs: Sequence[FinishedRun], folder: Path, reporter: Reporter) -> list[FinishedRun]:
    """Times the networks of each arm beside the dense one. What was timed before is kept in the folder.

    Args:
        sweep: The sweep.
        runs: Its runs that finished.
        folder: Its folder.
        reporter: Shows progress.

    Returns:
        The runs with these timings in place of their own. They keep their own where the recipe's runtime runs modules
        and not files, where files are gone, and where the sweep wants no timing.
    """
    recipes = {run.arm.name: run.recipe for run in sweep.runs}
    timings: dict[str, ArmTiming] = {}
    for arm in sweep.arms:
        own = [run for run in runs if run.arm == arm.name]
        if own and sweep.spec.timing_seconds:
            timing = _timing(arm.name, own, recipes[arm.name], sweep.spec.timing_seconds, folder, reporter)
            if timing is not None:
                timings[arm.name] = timing
    return [_with(timings.get(run.arm), run) for run in runs]


def _with(timing: ArmTiming | None, run: FinishedRun) -> FinishedRun:
    if timing is None:
        return run
    seed = str(run.seed)
    return run.model_copy(update={"dense_ms": timing.dense_ms, "ms": timing.ms[seed], "speedup": timing.speedup[seed]})


def _timing(
    arm: str, runs: Sequence[FinishedRun], recipe: Recipe, seconds: float, folder: Path, reporter: Reporter
) -> ArmTiming | None:
    stored = folder / "timings" / f"{arm}.json"
    if stored.is_file():
        timing = read_record(stored, ArmTiming)
        if timing.ms.keys() == {str(run.seed) for run in runs}:  # and no run was made since
            return timing
    runtime = recipe.runtime.runtime()
    ending = "-int8.onnx" if runtime.dtype == "int8" else ".onnx"
    files = {"dense": folder / runs[0].folder / f"dense{ending}"}
    files |= {str(run.seed): folder / run.folder / f"slim{ending}" for run in runs}
    if not runtime.files or not all(path.is_file() for path in files.values()):
        return None
    reporter.stage(f"timing {arm} beside dense, {seconds:g} s")
    with reporter.bar("timing") as update:
        timed = benchmark(files, runtime=runtime, seconds=seconds, pin=recipe.bench.pin, progress=update)
    ms = dict(timed.ms)
    timing = ArmTiming(runtime=runtime.name, dense_ms=ms.pop("dense"), ms=ms, speedup=timed.speedup)
    atomic_files.write_text(stored, json.dumps(timing.to_data(), indent=1) + "\n")
    return timing
