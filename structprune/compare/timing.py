"""The dense network and the slim ones of a comparison, timed in one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..progress import Reporter
from ..recipe import Recipe
from ..runtimes import Benchmark, Runtime, benchmark
from .records import CutRow, FailedRow, Row
from .rows import OURS, timed_row


def time_networks(networks: Sequence[str], recipe: Recipe, folder: Path, reporter: Reporter) -> Benchmark:
    """The dense network and these in turns, in one run, on the recipe's runtime."""
    runtime = recipe.runtime.runtime()
    paths = {"dense": folder / OURS / "dense.onnx"} | {name: folder / name / "slim.onnx" for name in networks}
    converted = {name: converted_file(path, runtime) for name, path in paths.items()}
    reporter.stage(f"timing {', '.join(converted)}, {recipe.bench.seconds:g} s")
    with reporter.bar("timing") as update:
        return benchmark(
            converted, runtime=runtime, seconds=recipe.bench.seconds, pin=recipe.bench.pin, progress=update
        )


def converted_file(path: Path, runtime: Runtime) -> Path:
    """The file as the runtime runs it; in int8 a run of the recipe has one already, calibrated on images."""
    own = path.with_name(f"{path.stem}-int8.onnx")
    return own if runtime.dtype == "int8" and own.is_file() else runtime.converted(path)


def timed_rows(
    rows: Sequence[CutRow | FailedRow], recipe: Recipe, folder: Path, reporter: Reporter
) -> list[Row | FailedRow]:
    """The rows with what their networks were timed at; failed ones as they are."""
    timed = time_networks([row.network for row in rows if isinstance(row, CutRow)], recipe, folder, reporter)
    return [timed_row(row, timed) if isinstance(row, CutRow) else row for row in rows]
