"""Times ONNX files against each other in onnxruntime, or another engine, pair by pair.

Each round opens new sessions (where a session's memory lies moves its speed by a few per cent for as long as
it lives, so one session a model would measure its luck), warms them up, then runs all models in turn, in
alternating order. The speedup is the median over all turns of the ratio within a turn; its interval is a
two-level bootstrap that draws rounds, then turns within each (Davison & Hinkley 1997, section 3.8).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RecipeError
from .engines import Module, engine_name, opener, settings
from .session import runtime_name

WIDE = 0.1  # an interval of this share of the speedup is too wide to quote a factor
NOISY, DRIFT = 1.5, 1.15  # ratios of the reference's own times from which the machine was not quiet
STEADY = 0.03  # how near the times of a warm model are to each other


@dataclass
class Benchmark:
    """Milliseconds are medians; `speedup[name]` is first model ÷ `name`, `ci95[name]` its 95 % interval.

    `notes` says what disturbed the timing. `times` holds the seconds of each round, of shape (turns, models)."""

    runtime: str
    threads: int
    batch: int
    rounds: int
    turns: int
    ms: dict[str, float]
    speedup: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    notes: list[str] = field(default_factory=list)
    times: list[np.ndarray] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "times"}

    def ratio(self, reference: str, name: str) -> tuple[float, tuple[float, float]]:
        """How many times as fast as `reference` another of the models is, and the 95 % interval."""
        if reference not in self.speedup and name in self.speedup:
            return self.speedup[name], self.ci95[name]
        order = list(self.ms)
        ratios = [turns[:, order.index(reference)] / turns[:, order.index(name)] for turns in self.times]
        return float(np.median(np.concatenate(ratios))), _interval(ratios, np.random.default_rng(0))

    def verdict(self, name: str) -> str:
        """What the interval allows to say of `name` against the first model."""
        low, high = self.ci95[name]
        if low > 1 or high < 1:
            claim = "faster" if low > 1 else "slower"
            return claim if high - low < WIDE * self.speedup[name] else f"{claim}, by an uncertain factor"
        return "no difference shown" if high - low < WIDE else "too noisy to tell: give --seconds more"


def benchmark(
    models: Mapping[str, str | Path | Module],
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 10.0,
    rounds: int = 8,
    engine: str = "onnxruntime",
    progress: Callable[[float], None] = lambda share: None,
) -> Benchmark:
    """Times two or more ONNX files on the CPU; the first is what the others are compared with.

    `engine` is one of `engines.ENGINES`; torch's take `engines.Module`s.

    Inputs are random (seeded) at batch size `batch`. `threads` is onnxruntime's intra-op count. `seconds` bounds
    the measuring (not opening and warming up); every round has at least 4 turns, whatever they take. Denormals
    are flushed to zero for all models. Raises RecipeError for a file that is missing or no ONNX model.
    """
    if len(models) < 2:
        raise RecipeError(f"benchmark got {len(models)} model: give two or more, the first is the reference")
    for name, path in models.items():
        if not isinstance(path, Module) and not Path(path).is_file():
            raise RecipeError(f"benchmark: {name}={path} is no file")
    rng = np.random.default_rng(0)
    open_ = opener(engine, batch, threads)
    with settings(engine, threads):
        times = [_round(models, open_, seconds / rounds, i, progress, rounds) for i in range(rounds)]
    names = list(models)
    speedup, interval = {}, {}
    for position, name in enumerate(names[1:], start=1):
        ratios = [turns[:, 0] / turns[:, position] for turns in times]
        speedup[name] = float(np.median(np.concatenate(ratios)))
        interval[name] = _interval(ratios, rng)
    everything = np.concatenate(times)
    return Benchmark(
        runtime=runtime_name() if engine == "onnxruntime" else engine_name(engine),
        threads=threads,
        batch=batch,
        rounds=rounds,
        turns=len(everything),
        ms={name: float(np.median(everything[:, i]) * 1e3) for i, name in enumerate(names)},
        speedup=speedup,
        ci95=interval,
        notes=_disturbances([turns[:, 0] for turns in times]),
        times=times,
    )


def _round(
    models: Mapping[str, str | Path | Module],
    open_: Callable[[str | Path | Module], Callable[[], Any]],
    seconds: float,
    number: int,
    progress: Callable[[float], None],
    rounds: int,
) -> np.ndarray:
    """Seconds of shape (turns, models)."""
    order = list(models)
    opening = order if number % 2 == 0 else order[::-1]
    runs = {name: open_(models[name]) for name in opening}
    for run in runs.values():
        _warm_up(run, seconds / 4)
    turns: list[list[float]] = []
    start = time.perf_counter()
    while len(turns) < 4 or time.perf_counter() - start < seconds:
        taken = {}
        for name in order if len(turns) % 2 == 0 else order[::-1]:
            before = time.perf_counter()
            runs[name]()
            taken[name] = time.perf_counter() - before
        turns.append([taken[name] for name in order])
        progress((number + min(1.0, (time.perf_counter() - start) / seconds)) / rounds)
    return np.array(turns)


def _disturbances(rounds: list[np.ndarray]) -> list[str]:
    """What the reference's own times tell of the machine. Ratios within a turn bear it, up to a point."""
    notes = []
    low, high = np.quantile(np.concatenate(rounds), [0.1, 0.9])
    if high > NOISY * low:
        notes.append(
            f"the reference's slowest tenth of runs took {high / low:.1f}x as long as its fastest tenth: other work "
            "was running, or the processor changed its clock"
        )
    third = len(rounds) // 3
    if third:
        first, last = (float(np.median(np.concatenate(part))) for part in (rounds[:third], rounds[-third:]))
        if abs(math.log(last / first)) > math.log(DRIFT):
            pace = "slower" if last > first else "faster"
            notes.append(f"the machine became {max(last / first, first / last):.2f}x {pace} while it was timed")
    return notes


def _warm_up(run: Callable[[], Any], seconds: float) -> None:
    """Runs until five runs in a row are within a few per cent of the five before, at most for `seconds` or so."""
    start = time.perf_counter()
    taken: list[float] = []
    while len(taken) < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        run()
        taken.append(time.perf_counter() - before)
        if len(taken) >= 10:
            earlier, later = np.median(taken[-10:-5]), np.median(taken[-5:])
            if abs(later / earlier - 1) < STEADY:
                return


def _interval(ratios: list[np.ndarray], rng: np.random.Generator, draws: int = 2000) -> tuple[float, float]:
    """The 95 % percentile interval of the median, drawing rounds and then turns within them."""
    medians = np.empty(draws)
    for i in range(draws):
        rounds = rng.integers(len(ratios), size=len(ratios))
        drawn = [ratios[r][rng.integers(len(ratios[r]), size=len(ratios[r]))] for r in rounds]
        medians[i] = np.median(np.concatenate(drawn))
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)
