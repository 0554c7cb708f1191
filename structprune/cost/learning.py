"""`learn_cost`: multiples, probes and the fit put together, from the cache where they were measured before.

An engine that tells what each kernel took has costs of its own. For others the shape of the costs is that of
onnxruntime's kernels on the CPU in float32, with the same threads and the same batch or a smaller one, scaled so that
the dense network takes what it takes on the engine; multiples are measured on the engine, and `plan_measured` corrects
the rest by what slim networks take there. All of it ends when the time for it is over: see `deadline`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..graph import DependencyGraph
from ..graph.fingerprint import fingerprint
from ..plan import choices
from ..plan.alignment import Multiples, aligned
from ..runtimes import benchmark
from ..runtimes.runtime import Runtime
from .cache import cached, held
from .cached_records import DenseEntry, MultiplesEntry, PossibleMultiples, ProbesEntry
from .deadline import Deadline
from .model import CostModel, by_macs, fit
from .multiples import measure_multiples
from .probes import RUNS_OF_A_PROBE, Timings, design, measure_probes

PROBES = 16
FEWEST = 4  # probes from which kernels are told apart
UNTIMED = 16  # the multiple where none was timed: what onnxruntime pads to with AVX-512, and twice that of tensor cores
MAX_RATIO = 0.9  # of a group's units that go in the narrowest probe
Progress = Callable[[float], None]


def learn_multiples(
    runtime: Runtime | None = None,
    *,
    refresh: bool = False,
    deadline: Deadline | None = None,
    progress: Progress = lambda share: None,
    tell: Callable[[str], None] = lambda note: None,
) -> Multiples:
    """Learns between which channel counts this machine's runtime gains nothing; kept on disk (see `cost.cache`).

    Args:
        runtime: By default onnxruntime on this CPU.
        refresh: Whether they are measured anew.
        deadline: When to stop. A kind that was not timed by then gets `UNTIMED`.
        progress: Gets the share that is done.
        tell: Gets a note where timings don't agree, as beside other work, or came too late. Nothing is kept then.

    Returns:
        A number of channels for each kind of layer; the largest that it may be, where timings don't agree.
    """
    chosen = runtime or Runtime()

    def measure() -> PossibleMultiples:
        return measure_multiples(replace(chosen, batch=1), progress=progress, deadline=deadline)

    multiples_of_kinds = cached(MultiplesEntry, _about_multiples(chosen), measure, refresh, chosen.version, _agree)
    if not _agree(multiples_of_kinds):
        unsure = [
            f"{kind} ({' or '.join(map(str, multiples))})"
            for kind, multiples in multiples_of_kinds.items()
            if len(multiples) > 1
        ]
        untimed = [kind for kind, multiples in multiples_of_kinds.items() if not multiples]
        if unsure:
            tell(
                f"timings do not agree on the multiple of the widths of {', '.join(unsure)}, as where other work is "
                "running: the largest was taken; for a surer plan run again when the machine is quiet"
            )
        if untimed:
            tell(
                f"there was no time to find the multiple of the widths of {', '.join(untimed)}: multiples of {UNTIMED} "
                "were taken; for faster networks give planning more seconds"
            )
    return {kind: max(multiples, default=UNTIMED) for kind, multiples in multiples_of_kinds.items()}


def multiples_are_kept(runtime: Runtime) -> bool:
    """Whether `learn_multiples` gives what it has learned before."""
    multiples_of_kinds = held(MultiplesEntry, _about_multiples(runtime), runtime.version)
    return multiples_of_kinds is not None and _agree(multiples_of_kinds)


def _agree(multiples_of_kinds: PossibleMultiples) -> bool:
    return all(len(multiples) == 1 for multiples in multiples_of_kinds.values())


def _about_multiples(runtime: Runtime) -> dict[str, Any]:
    return {"threads": runtime.threads, "dtype": runtime.dtype, "version": 3}


def learn_cost(
    graph: DependencyGraph,
    runtime: Runtime | None = None,
    *,
    probes: int = PROBES,
    seconds: float = 60.0,
    seed: int = 0,
    multiples: Multiples | None = None,
    refresh: bool = False,
    deadline: Deadline | None = None,
    progress: Progress = lambda share: None,
    tell: Callable[[str], None] = lambda note: None,
) -> CostModel:
    """Learns what a forward pass of the graph's model takes on a runtime, as a function of the widths.

    Measurements are kept on disk (see `cost.cache`) by machine, runtime and architecture. Costs on an engine that does
    not tell its kernels' times are onnxruntime's, scaled (see the module).

    Args:
        graph: The dependency graph of the dense network.
        runtime: By default onnxruntime on this CPU, with one thread, a batch of 1 and float32.
        probes: How many networks of other widths are exported and timed.
        seconds: Of timing them all, beside the time of their export. Kernels that would take longer, or longer than the
            deadline leaves, are timed at a smaller batch.
        seed: Of the probes' widths.
        multiples: Those of `learn_multiples`, which is called if none are given.
        refresh: Whether all is measured anew.
        deadline: When to stop. Probes that it comes before are left out; with fewer than `FEWEST`, costs go with MACs.
        progress: Gets the share that is done.
        tell: Gets a note of probes that were left out.

    Returns:
        Milliseconds as a function of the widths.
    """
    chosen, until = runtime or Runtime(), deadline or Deadline()
    multiples = multiples or learn_multiples(chosen, refresh=refresh, deadline=until)
    timer = chosen if chosen.tells_kernels else Runtime(chosen.threads, chosen.batch)
    timer = replace(timer, batch=_batch(graph, timer, until.left if timer == chosen else seconds, probes, refresh))
    ones = {group.name: np.ones(group.units) for group in graph.groups}
    options = choices(graph.groups, ones, 1, MAX_RATIO, aligned(graph, multiples), ())
    dense, *between, narrowest = design(options, probes, seed)
    widths = [dense, narrowest, *between]  # those that matter most come first

    timings = _probed(graph, widths, timer, seconds, refresh, until, progress)
    timed = len(timings.probes)
    enough = timed >= min(FEWEST, len(widths))
    if timed < len(widths):
        tell(
            f"there was time to time {timed} of {len(widths)} networks of other widths: "
            + ("costs of widths are the less exact" if enough else "costs are taken to go with MACs")
            + "; for a surer plan give planning more seconds"
        )
    cost = fit(graph, timings.probes, timings.dense_ms, multiples=multiples, runtime=timer) if enough else None
    if cost is not None and chosen == timer:
        return cost
    about = {**chosen.to_dict(), "network": fingerprint(graph), "version": 2}
    rounds = 1 if until.over else 2
    dense_ms = cached(DenseEntry, about, lambda: time_dense(graph, chosen, rounds), refresh, chosen.version)
    return by_macs(graph, dense_ms, multiples, chosen) if cost is None else cost.scaled(chosen, dense_ms)


def _probed(
    graph: DependencyGraph,
    widths: list[dict[str, int]],
    timer: Runtime,
    seconds: float,
    refresh: bool,
    deadline: Deadline,
    progress: Progress,
) -> Timings:
    """What networks of these widths took, as far as there was time for them."""

    def measure() -> Timings:
        return measure_probes(graph, widths, runtime=timer, seconds=seconds, progress=progress, deadline=deadline)

    def is_whole(timings: Timings) -> bool:
        return [probe.widths for probe in timings.probes] == widths

    settings = {"threads": timer.threads, "batch": timer.batch, "dtype": timer.dtype}
    about = {**settings, "network": fingerprint(graph), "widths": widths, "seconds": seconds, "version": 7}
    return cached(ProbesEntry, about, measure, refresh, timer.version, is_whole)


def _batch(graph: DependencyGraph, timer: Runtime, seconds: float, probes: int, refresh: bool) -> int:
    """The largest batch up to that of `timer`, halved as often as needed, at which all probes' kernels are
    timed in about so many seconds. The shape of the costs is nearly the same at every batch; the scale is measured."""
    if timer.batch == 1 or math.isinf(seconds):
        return timer.batch
    one = replace(timer, batch=1)
    about = {**one.to_dict(), "network": fingerprint(graph), "version": 3}
    each = cached(DenseEntry, about, lambda: time_dense(graph, one, 1, 0.2), refresh, one.version) / 1e3
    batch = timer.batch
    while batch > 1 and batch * each * probes * RUNS_OF_A_PROBE > seconds:
        batch //= 2
    return batch


def time_dense(graph: DependencyGraph, runtime: Runtime, rounds: int = 2, seconds: float = 2.0) -> float:
    """Milliseconds that the dense network takes on a runtime."""
    with tempfile.TemporaryDirectory() as folder:
        dense = runtime.prepare(graph.model, graph.inputs, Path(folder) / "dense.onnx")
        result = benchmark({"dense": dense, "again": dense}, runtime=runtime, seconds=seconds, rounds=rounds)
        return result.ms["dense"]
