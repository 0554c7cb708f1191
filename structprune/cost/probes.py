"""Times a network's kernels at a few sets of widths.

Each probe is a slim network with widths drawn for every group at once, so that a few dozen of them show how each kernel
depends on the widths before and after it. Only the shapes matter; which units stay does not. What a machine does beside
changes its speed from second to second, so each probe is timed in turns with the dense network, and counts as if that
had taken each time what it takes in the median. Where a network lies in memory changes its speed, too, for as long as
it stays open, and that of depthwise convolutions by half: so each turn opens the probe anew.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from ..graph import DependencyGraph
from ..plan import realise
from ..plan.budget import Choice, Widths
from ..runtimes.engine import Kernel, Running, Watched
from ..runtimes.latency import in_a_row, later_half
from ..runtimes.runtime import Runtime
from ..surgery import prune
from .deadline import Deadline

TURNS = (3, 12)  # the fewest and the most turns of a probe
RUNS = 3  # the fewest in a row
RUNS_OF_A_PROBE = TURNS[0] * 3 * RUNS  # at least: each turn runs it, runs it watched and runs the dense network
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Probe:
    """What one slim network took: in all, and each of its kernels in one run."""

    widths: Annotated[dict[str, Annotated[int, Field(ge=1)]], Field(description="units that stay in each group")]
    ms: Annotated[float, Field(gt=0, description="milliseconds of a forward pass")]
    kernels: Annotated[tuple[Kernel, ...], Field(description="each of its kernels, in one run")]


@dataclass(frozen=True)
class Timings:
    """What probes of one network took: as it is kept on disk (see `cost.cache`)."""

    probes: Annotated[list[Probe], Field(description="the dense network first, then the narrowest")]
    dense_ms: Annotated[float, Field(gt=0, description="milliseconds of the dense network")]


def design(choices: Sequence[Choice], count: int, seed: int = 0) -> list[Widths]:
    """`count` sets of widths: the dense ones, the narrowest, and between them each group's own spread evenly over its
    choices, in an order of its own (a Latin hypercube)."""
    rng = np.random.default_rng(seed)
    columns = {}
    for choice in choices:
        places = np.linspace(0, len(choice.widths) - 1, count)
        inner = rng.permutation(np.round(places[1:-1]).astype(int))
        order = [len(choice.widths) - 1, *inner, 0]
        columns[choice.group.name] = [int(choice.widths[i]) for i in order]
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]


def measure_probes(
    graph: DependencyGraph,
    widths: Sequence[Widths],
    *,
    runtime: Runtime,
    seconds: float = 60.0,
    progress: Progress = lambda share: None,
    deadline: Deadline | None = None,
) -> Timings:
    """The probes, in about `seconds` of timing (exporting comes on top).

    `runtime` is one that tells what each kernel took. After the deadline no probe is begun:
    there may be fewer than widths, or none, and then the dense network's milliseconds are NaN.
    """
    until = deadline or Deadline()
    timings: list[tuple[Widths, tuple[float, list[Kernel]]]] = []
    paces: list[float] = []
    with tempfile.TemporaryDirectory() as name, runtime.active():
        folder = Path(name)
        example = graph.inputs.map(lambda x: torch.cat([x] * runtime.batch) if x.dim() else x)
        dense = runtime.open(runtime.prepare(graph.model, example, folder / "dense.onnx"))
        for number, chosen in enumerate(widths):
            if until.over:
                break
            kept = {g.name: g.chosen(np.ones(g.units), chosen[g.name]) for g in graph.groups}
            slim = prune(graph.model, realise(graph, kept))
            source = runtime.prepare(slim, example, folder / "probe.onnx")
            plain, watched = partial(runtime.open, source), partial(runtime.watch, source, folder)

            def at(share: float, number: int = number) -> None:
                progress((number + share) / len(widths))

            probe, pace = _turns(dense, plain, watched, seconds / len(widths), at, until)
            timings.append((chosen, probe))
            paces += pace
            at(1.0)
    if not timings:
        return Timings([], math.nan)
    usual = statistics.median(paces)
    probes = [
        Probe(chosen, ms * usual, tuple(replace(k, microseconds=k.microseconds * usual) for k in kernels))
        for chosen, (ms, kernels) in timings
    ]
    return Timings(probes, probes[0].ms)


def _turns(
    dense: Running,
    plain: Callable[[], Running],
    watched: Callable[[], Watched],
    seconds: float,
    progress: Progress,
    until: Deadline,
) -> tuple[tuple[float, list[Kernel]], list[float]]:
    """A probe's milliseconds, and its kernels, ÷ the dense network's just before and after; and what that took.

    Medians over turns. `plain` and `watched` open the probe, which each turn does.
    """
    ratios: list[float] = []
    recorded: list[list[Kernel]] = []
    pace = [_fastest(dense)]
    start = time.perf_counter()
    while not ratios or (
        not until.over
        and (len(ratios) < TURNS[0] or (len(ratios) < TURNS[1] and time.perf_counter() - start < seconds))
    ):
        progress(min(1.0, len(ratios) / TURNS[0]))
        ms, looked_at = _fastest(plain()), watched()
        in_a_row(looked_at.run, RUNS)
        pace.append(_fastest(dense))
        beside = (pace[-2] + pace[-1]) / 2
        ratios.append(ms / beside)
        for run in later_half(looked_at.kernels()):
            recorded.append([replace(kernel, microseconds=kernel.microseconds / beside) for kernel in run])
    kernels = [
        replace(same[0], microseconds=statistics.median(kernel.microseconds for kernel in same))
        for same in zip(*recorded, strict=True)
    ]
    return (statistics.median(ratios), kernels), pace


def _fastest(network: Running) -> float:
    return min(later_half(in_a_row(network.run, RUNS))) * 1e3
