"""Times a network's kernels at a few sets of widths.

Each probe is a slim network with widths drawn for every group at once, so that a few dozen of them show how each kernel
depends on the widths before and after it. Only the shapes matter; which units stay does not. What a machine does beside
changes its speed from second to second, so each probe is timed in turns with the dense network, and counts as if that
had taken what it takes in the median.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..bench.runtime import Runtime
from ..bench.session import Kernel, Session
from ..export import export_onnx
from ..graph import DependencyGraph
from ..plan import realise
from ..plan.budget import Choice, Widths
from ..surgery import prune

TURNS = (3, 12)  # the fewest and the most turns of a probe
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Probe:
    """What one slim network took: in all, and each of its kernels in one run."""

    widths: Widths
    ms: float
    kernels: tuple[Kernel, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Probe:
        kernels = tuple(
            Kernel(**{**k, "inputs": _shapes(k["inputs"]), "outputs": _shapes(k["outputs"])}) for k in data["kernels"]
        )
        return cls({name: int(width) for name, width in data["widths"].items()}, float(data["ms"]), kernels)


def _shapes(given: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(shape) for shape in given)


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
) -> tuple[list[Probe], float]:
    """The probes, and the dense network's own milliseconds, in about `seconds` of timing (exporting comes on top).

    `runtime` is onnxruntime's on the CPU, which tells what each kernel took.
    """
    taken, references = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        example = graph.inputs.map(lambda x: torch.cat([x] * runtime.batch) if x.dim() else x)
        path = runtime.converted(export_onnx(graph.model, example, folder / "dense.onnx"))
        dense = Session(path, runtime.batch, runtime.threads)
        for number, chosen in enumerate(widths):
            kept = {g.name: g.chosen(np.ones(g.units), chosen[g.name]) for g in graph.groups}
            slim = prune(graph.model, realise(graph, kept))
            path = runtime.converted(export_onnx(slim, example, folder / "probe.onnx"))
            plain, watched = (Session(path, runtime.batch, runtime.threads, profile=to) for to in (None, folder))
            path.unlink()
            ms, reference, kernels = _turns(dense, plain, watched, seconds / len(widths))
            taken.append((chosen, ms, kernels))
            references.append(reference)
            progress((number + 1) / len(widths))
    usual = statistics.median(references)
    probes = []
    for (chosen, ms, kernels), reference in zip(taken, references, strict=True):
        pace = usual / reference
        scaled = (replace(kernel, microseconds=kernel.microseconds * pace) for kernel in kernels)
        probes.append(Probe(chosen, ms * pace, tuple(scaled)))
    return probes, usual


def _turns(dense: Session, plain: Session, watched: Session, seconds: float) -> tuple[float, float, list[Kernel]]:
    """Medians over turns: milliseconds of the probe and of the dense network, and each kernel of the probe."""
    runs = 3  # in a row, of which the first warms the caches
    plain_ms, dense_ms = [], []
    start = time.perf_counter()
    turns = 0
    while turns < TURNS[0] or (turns < TURNS[1] and time.perf_counter() - start < seconds):
        dense_ms.append(_fastest(dense, runs))
        plain_ms.append(_fastest(plain, runs))
        for _ in range(runs):
            watched.run()
        turns += 1
    recorded = [run for number, run in enumerate(watched.kernels()) if number % runs]
    kernels = [
        replace(same[0], microseconds=statistics.median(kernel.microseconds for kernel in same))
        for same in zip(*recorded, strict=True)
    ]
    return statistics.median(plain_ms), statistics.median(dense_ms), kernels


def _fastest(session: Session, runs: int) -> float:
    taken = []
    for _ in range(runs):
        before = time.perf_counter()
        session.run()
        taken.append(time.perf_counter() - before)
    return min(taken) * 1e3
