"""A network timed against itself: a sound benchmark finds a speedup of 1.00 inside its interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import structprune as sp

from ..errors import RecipeError
from ..messages import unknown
from ..runtimes import Benchmark, environment
from ..timm_names import architectures
from .timm_models import build, example

FIRST, AGAIN = "dense", "again"


def export_model(name: str, path: Path) -> Path:
    """Exports a timm model with random weights.

    Args:
        name: Of the model.
        path: The ONNX file to write.

    Returns:
        That path.

    Raises:
        RecipeError: timm has no model of this name.
    """
    if name not in architectures():
        raise RecipeError(unknown("model", name, architectures()))
    model = build(name, "cpu", seed=0)
    return sp.export_onnx(model, example(model, "cpu", seed=0), path)


def repeats(file: Path, count: int, *, batch: int, threads: int, seconds: float, pin: bool) -> Iterator[Benchmark]:
    """Times a file against itself, again and again.

    Args:
        file: An ONNX file.
        count: How often.
        batch: Images in a forward pass.
        threads: Of onnxruntime.
        seconds: For each timing.
        pin: Whether to stay on the idlest cores, as many as there are threads.

    Returns:
        A benchmark of `FIRST` and `AGAIN` at a time.
    """
    for _ in range(count):
        yield sp.benchmark({FIRST: file, AGAIN: file}, batch=batch, threads=threads, seconds=seconds, pin=pin)


def covers_one(result: Benchmark) -> bool:
    """Whether 1.00 lies inside the interval."""
    low, high = result.ci95[AGAIN]
    return low <= 1 <= high


def header(threads: int, batch: int) -> str:
    """On what machine it is timed, and how."""
    machine = environment()
    return f"{machine.processor}, {machine.cores} cores; {threads} threads, batch {batch}"


def line(result: Benchmark) -> str:
    """One timing, for a line of its own."""
    low, high = result.ci95[AGAIN]
    return (
        f"{result.ms[FIRST]:.3f} ms and {result.ms[AGAIN]:.3f} ms, ratio {result.speedup[AGAIN]:.4f}, "
        f"95 % interval {low:.4f} to {high:.4f}, {result.turns} turns"
    )


def summary(results: Sequence[Benchmark]) -> str:
    """In how many timings 1.00 lay inside."""
    return f"1.00 lies inside the interval in {sum(map(covers_one, results))} of {len(results)}"
