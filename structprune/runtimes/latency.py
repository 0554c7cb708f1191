"""Times networks against each other on one runtime, pair by pair, or one by itself.

Each round opens new sessions (where a session's memory lies moves its speed by a few per cent for as long as
it lives, so one session a model would measure its luck), warms them up, then gives all models a turn, in
alternating order: a fiftieth of a second of runs, of which the later half count. So each is timed as in a loop over
images, with its own weights in the caches and not another's. The speedup is the median over all turns of the ratio
within a turn; its interval is a two-level bootstrap that draws rounds, then turns within each (Davison & Hinkley 1997,
section 3.8).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.json_schema import SkipJsonSchema
from torch import nn

from ..argument_checks import checked, flag, function, instance, mapping, number, optional, whole
from ..errors import RecipeError
from ..json_records import Interval
from ..ops import Inputs
from .affinity import pinned
from .energy import available, joules_per_run
from .engine import Network
from .runtime import Runtime
from .timing_statistics import WIDE, disturbances, interval_of_median, is_too_wide, too_wide

T = TypeVar("T")
Source = str | Path | nn.Module | Network

ROW = 0.02  # seconds of runs in a row in each turn
STEADY = 0.03  # how near the times of a warm model are to each other


@dataclass
class Benchmark:
    """Networks timed against each other, the first of which the others are compared with.

    Printed, it says in the first line what is slower than that. Its `to_data()` is what `structprune bench --json`
    prints; `times` is not part of it: the seconds of each round, of shape (turns, models)."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    runtime: Annotated[str, Field(description="the engine with its version")]
    threads: Annotated[int, Field(description="intra-op threads")]
    batch: Annotated[int, Field(description="samples in a forward pass")]
    rounds: Annotated[int, Field(description="how often the networks were opened anew")]
    turns: Annotated[int, Field(description="interleaved turns in all rounds")]
    ms: Annotated[dict[str, float], Field(description="median milliseconds of a forward pass, by network")]
    speedup: Annotated[
        dict[str, float], Field(description="median of the ratios first network ÷ this one within a turn")
    ]
    ci95: Annotated[dict[str, Interval], Field(description="the 95 % interval of the speedup")]
    notes: Annotated[
        list[str], Field(description="which networks are slower than the first, then what disturbed the timing")
    ] = field(default_factory=list)
    ms_ci95: Annotated[dict[str, Interval], Field(description="the 95 % interval of `ms`")] = field(
        default_factory=dict
    )
    cores: Annotated[
        list[int] | None, Field(description="those that it was pinned to; `null` where it was not pinned")
    ] = None
    joules: Annotated[
        dict[str, float] | None,
        Field(
            description="what the processor packages took for a forward pass, idle share included; `null` where the "
            "machine does not tell"
        ),
    ] = None
    times: Annotated[SkipJsonSchema[list[np.ndarray]], Field(exclude=True)] = field(default_factory=list, repr=False)

    def to_data(self) -> dict[str, Any]:
        """Gives plain data for a JSON file.

        Returns:
            The fields, by docs/benchmark.schema.json.
        """
        return _BENCHMARK.dump_python(self, mode="json")

    def ratio(self, reference: str, name: str) -> tuple[float, tuple[float, float]]:
        """Compares two of the models.

        Args:
            reference: a model's name
            name: the other's

        Returns:
            How many times as fast as `reference` the other is, and the 95 % interval.
        """
        if reference not in self.speedup and name in self.speedup:
            return self.speedup[name], self.ci95[name]
        order = list(self.ms)
        ratios = [turns[:, order.index(reference)] / turns[:, order.index(name)] for turns in self.times]
        return float(np.median(np.concatenate(ratios))), interval_of_median(ratios, np.random.default_rng(0))

    def __str__(self) -> str:
        """In the first line what is slower than the first model, if anything is."""
        reference = next(iter(self.ms))
        lines = [line for name in self.speedup if (line := pace(reference, name, self.speedup[name], self.ci95[name]))]
        for name, ms in self.ms.items():
            low, high = self.ci95.get(name, (1.0, 1.0))
            ratio = f", {self.speedup[name]:.2f}× (95 %: {low:.2f} to {high:.2f})" if name in self.speedup else ""
            lines.append(f"{name}: {ms:.3f} ms{ratio}")
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        where = f"{self.runtime}, {threads}, batch {self.batch}, {self.turns} turns in {self.rounds} rounds"
        return "\n".join([*lines, where, *(note for note in self.notes if note not in lines)])

    def verdict(self, name: str) -> str:
        """Says what the interval allows to say of a model against the first one.

        Args:
            name: the model's

        Returns:
            A few words, such as 'faster' or 'no difference shown'.
        """
        low, high = self.ci95[name]
        if low > 1 or high < 1:
            claim = "faster" if low > 1 else "slower"
            return f"{claim}, by an uncertain factor" if is_too_wide(self.speedup[name], (low, high)) else claim
        return "no difference shown" if high - low < WIDE else "too noisy to tell: give --seconds more"


_BENCHMARK = TypeAdapter(Benchmark)


def pace(reference: str, name: str, speedup: float, ci95: Sequence[float]) -> str:
    """Says that a network was not measured faster than another; no table may leave this below its first line.

    Args:
        reference: The other network's name.
        name: The network's name.
        speedup: How many times as fast as the other it is.
        ci95: The 95 % interval of the speedup.

    Returns:
        A line; an empty one for a network that was measured faster.
    """
    low, high = ci95
    if speedup >= 1:
        return ""
    shown = "slower than" if high < 1 else "no faster than"
    return f"{name} is {shown} {reference}: {speedup:.2f}× as fast (95 %: {low:.2f} to {high:.2f})"


@checked(
    models=mapping(
        instance((str, os.PathLike, nn.Module, Network), ""),
        "networks by name: ONNX files, or modules with a runtime",
    ),
    batch=whole(1),
    threads=whole(1),
    seconds=number(above=0),
    rounds=whole(1),
    runtime=optional(instance(Runtime, "a structprune.runtimes.Runtime")),
    pin=flag,
    energy=flag,
    progress=function,
)
def benchmark(
    models: Mapping[str, Source],
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 10.0,
    rounds: int = 8,
    runtime: Runtime | None = None,
    example_inputs: Any = None,
    pin: bool = False,
    energy: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> Benchmark:
    """Times networks; the first is what the others are compared with. By default ONNX files on the CPU.

    Inputs are random (seeded). Every round has at least 4 turns, whatever they take; in a turn each network runs for
    ROW seconds or once, and the later half of its runs count. Denormals are flushed to zero for all models.

    Args:
        models: networks by name: ONNX files, or modules with a runtime of torch's.
        batch: the batch size.
        threads: onnxruntime's intra-op threads.
        seconds: bounds the measuring (not opening and warming up).
        rounds: how often the networks are opened anew.
        runtime: times them elsewhere, and has a batch and threads of its own.
        example_inputs: what modules run on, as for `export_onnx`; repeated or cut to the runtime's batch.
        pin: keeps the timing on the idlest cores, as many as there are threads; a note says where that can't be done.
        energy: also runs each network for a second for `joules`, where the machine tells.
        progress: is called with the share that is done.

    Returns:
        Medians in milliseconds, speedups over the first network with intervals, and what disturbed the timing.

    Raises:
        RecipeError: a file is missing or no ONNX model, the runtime does not run it, or a batch or threads are given
            beside another runtime's.

    Example:
        >>> measured = sp.benchmark({"dense": "dense.onnx", "slim": "slim.onnx"}, seconds=0.2, rounds=2)
        >>> sorted(measured.ms)
        ['dense', 'slim']
    """
    runtime = _runtime(len(models), runtime, threads, batch)
    sources = {name: _source(name, model, example_inputs) for name, model in models.items()}
    with runtime.active(), _pinned(pin, runtime) as cores:
        times = [_round(sources, runtime, seconds / rounds, i, progress, rounds) for i in range(rounds)]
        joules = _energy(sources, runtime, min(1.0, seconds)) if energy else None
    unpinned = ["it was not pinned to cores: they can't be chosen here"] if pin and cores is None else []
    measured = benchmark_of(runtime, list(models), times)
    return replace(measured, notes=[*measured.notes, *unpinned], cores=cores, joules=joules)


def _runtime(models: int, runtime: Runtime | None, threads: int, batch: int) -> Runtime:
    """The runtime that is asked for. Raises RecipeError for no models and for a runtime that is not clear."""
    if not models:
        raise RecipeError("benchmark got no model: give one, or several, of which the first is the reference")
    if runtime and (threads, batch) not in ((1, 1), (runtime.threads, runtime.batch)):
        raise RecipeError(
            f"benchmark got threads={threads}, batch={batch} beside a runtime of {runtime.threads} and {runtime.batch}"
            ": give the runtime alone"
        )
    return runtime or Runtime(threads, batch)


def benchmark_of(runtime: Runtime, names: list[str], times: list[np.ndarray]) -> Benchmark:
    """Sums up the seconds of each round, of shape (turns, models); the others are compared with the first model."""
    rng = np.random.default_rng(0)
    speedup, interval = {}, {}
    for position, name in enumerate(names[1:], start=1):
        ratios = [turns[:, 0] / turns[:, position] for turns in times]
        speedup[name] = float(np.median(np.concatenate(ratios)))
        interval[name] = interval_of_median(ratios, rng)
    slower = [pace(names[0], name, speedup[name], interval[name]) for name in speedup if interval[name][1] < 1]
    disturbed = disturbances([turns[:, 0] for turns in times])
    turns = np.concatenate(times)
    return Benchmark(
        runtime=runtime.version,
        threads=runtime.threads,
        batch=runtime.batch,
        rounds=len(times),
        turns=len(turns),
        ms={name: float(np.median(turns[:, i]) * 1e3) for i, name in enumerate(names)},
        ms_ci95={name: interval_of_median([t[:, i] * 1e3 for t in times], rng) for i, name in enumerate(names)},
        speedup=speedup,
        ci95=interval,
        notes=[*slower, *disturbed, *too_wide(speedup, interval)],
        times=times,
    )


def _source(name: str, model: Source, example_inputs: Any) -> str | Path | Network:
    if isinstance(model, nn.Module):
        if example_inputs is None:
            raise RecipeError(f"benchmark: {name} is a module: give example_inputs")
        return Network(model, Inputs.of(example_inputs))
    if not isinstance(model, Network) and not Path(model).is_file():
        raise RecipeError(f"benchmark: {name}={model} is not a file")
    return model


@contextmanager
def _pinned(pin: bool, runtime: Runtime) -> Iterator[list[int] | None]:
    """Only where all threads that work are the calling one or started by it."""
    if not pin or not runtime.can_be_pinned:
        yield None
        return
    with pinned(runtime.threads) as cores:
        yield cores


def _energy(sources: Mapping[str, str | Path | Network], runtime: Runtime, seconds: float) -> dict[str, float] | None:
    """Of the CPU; one network after the other."""
    energies = {}
    for name, source in sources.items() if runtime.device == "cpu" and available() else ():
        opened = runtime.open(source)
        _warm_up(opened.run, seconds / 4)
        joules = joules_per_run(opened.run, seconds)
        if joules is not None:
            energies[name] = joules
    return energies or None


def _round(
    models: Mapping[str, str | Path | Network],
    runtime: Runtime,
    seconds: float,
    number: int,
    progress: Callable[[float], None],
    rounds: int,
) -> np.ndarray:
    """Seconds of shape (turns, models)."""
    order = list(models)
    opening = order if number % 2 == 0 else order[::-1]
    runs = {name: runtime.open(models[name]).run for name in opening}
    for run in runs.values():
        _warm_up(run, seconds / 4)
    turns: list[list[float]] = []
    start = time.perf_counter()
    while len(turns) < 4 or time.perf_counter() - start < seconds:
        medians = {}
        for name in order if len(turns) % 2 == 0 else order[::-1]:
            medians[name] = float(np.median(later_half(in_a_row(runs[name]))))
        turns.append([medians[name] for name in order])
        progress((number + min(1.0, (time.perf_counter() - start) / seconds)) / rounds)
    return np.array(turns)


def in_a_row(run: Callable[[], Any], at_least: int = 1) -> list[float]:
    """The seconds of each of some runs, in all about ROW or more."""
    durations: list[float] = []
    start = time.perf_counter()
    while len(durations) < at_least or time.perf_counter() - start < ROW:
        before = time.perf_counter()
        run()
        durations.append(time.perf_counter() - before)
    return durations


def later_half(runs: Sequence[T]) -> Sequence[T]:
    """Of runs in a row those that count: the others load the caches."""
    return runs[len(runs) // 2 :]


def _warm_up(run: Callable[[], Any], seconds: float) -> None:
    """Runs until five runs in a row are within a few per cent of the five before, at most for `seconds` or so."""
    start = time.perf_counter()
    durations: list[float] = []
    while len(durations) < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        run()
        durations.append(time.perf_counter() - before)
        if len(durations) >= 10:
            earlier, later = np.median(durations[-10:-5]), np.median(durations[-5:])
            if abs(later / earlier - 1) < STEADY:
                return
