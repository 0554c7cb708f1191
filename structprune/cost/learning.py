"""`learn_cost`: steps, probes and the fit put together, from the cache where they were measured before.

Only onnxruntime on the CPU tells what each kernel took. For other engines the shape of the costs is that of its kernels
in float32, with the same threads and batch, scaled so that the dense network takes what it takes on the engine; steps
are measured on the engine, and `plan_measured` corrects the rest by what slim networks take there.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..bench import benchmark
from ..bench.runtime import Runtime
from ..graph import DependencyGraph
from ..graph.capture import op_name
from ..plan import choices
from ..plan.alignment import Steps, aligned
from .cache import cached
from .model import CostModel, fit
from .probes import Probe, design, measure_probes
from .steps import measure_steps

PROBES = 16
MAX_RATIO = 0.9  # of a group's units that go in the narrowest probe
Progress = Callable[[float], None]


def learn_steps(
    runtime: Runtime | None = None,
    *,
    refresh: bool = False,
    progress: Progress = lambda share: None,
    tell: Callable[[str], None] = lambda note: None,
) -> Steps:
    """The channel counts between which this machine's runtime gains nothing, for each kind of layer.

    Kept on disk (see `cost.cache`). Where timings don't agree on a step, as beside other work, the largest that it
    may be is taken, `tell` is called with a note of it, and nothing is kept.
    """
    chosen = runtime or Runtime()
    about = {"threads": chosen.threads, "dtype": chosen.dtype, "version": 3}

    def measure() -> dict[str, list[int]]:
        return measure_steps(replace(chosen, batch=1), progress=progress)

    def sure(seen: dict[str, list[int]]) -> bool:
        return all(len(steps) == 1 for steps in seen.values())

    seen = cached("steps", about, measure, refresh, chosen.version, sure)
    if not sure(seen):
        unsure = [f"{kind} ({' or '.join(map(str, steps))})" for kind, steps in seen.items() if len(steps) > 1]
        tell(
            f"timings do not agree on the step of the widths of {', '.join(unsure)}, as where other work is running: "
            "the largest was taken; for a surer plan run again when the machine is quiet"
        )
    return {kind: max(steps) for kind, steps in seen.items()}


def learn_cost(
    graph: DependencyGraph,
    runtime: Runtime | None = None,
    *,
    probes: int = PROBES,
    seconds: float = 60.0,
    seed: int = 0,
    steps: Steps | None = None,
    refresh: bool = False,
    progress: Progress = lambda share: None,
) -> CostModel:
    """What a forward pass of the graph's model takes on `runtime`, as a function of the widths.

    By default that is onnxruntime on this CPU, with one thread, a batch of 1 and float32. Costs on another engine are
    onnxruntime's, scaled (see the module).

    `probes` slim networks are exported and timed in about `seconds`, beside the time of their export. Measurements are
    kept on disk (see `cost.cache`) by machine, runtime and architecture; `refresh` makes them anew. `steps` are
    those of `learn_steps`, which is called if none are given.
    """
    chosen = runtime or Runtime()
    steps = steps or learn_steps(chosen, refresh=refresh)
    told = chosen if chosen.tells_kernels else Runtime(chosen.threads, chosen.batch)
    ones = {group.name: np.ones(group.units) for group in graph.groups}
    options = choices(graph.groups, ones, 1, MAX_RATIO, aligned(graph, steps), ())
    widths = design(options, probes, seed)

    def measure() -> dict[str, Any]:
        made, dense_ms = measure_probes(graph, widths, runtime=told, seconds=seconds, progress=progress)
        return {"dense_ms": dense_ms, "probes": [probe.to_dict() for probe in made]}

    asked = {"threads": told.threads, "batch": told.batch, "dtype": told.dtype}
    about = {**asked, "network": _identity(graph), "widths": widths, "seconds": seconds, "version": 6}
    held = cached("probes", about, measure, refresh)
    read = [Probe.from_dict(probe) for probe in held["probes"]]
    cost = fit(graph, read, held["dense_ms"], steps=steps, runtime=told)
    if chosen == told:
        return cost
    about = {**chosen.to_dict(), "network": _identity(graph), "version": 2}
    return cost.scaled(chosen, cached("dense", about, lambda: _dense_ms(graph, chosen), refresh, chosen.version))


def _dense_ms(graph: DependencyGraph, runtime: Runtime) -> float:
    with tempfile.TemporaryDirectory() as folder:
        dense = runtime.prepare(graph.model, graph.inputs, Path(folder) / "dense.onnx")
        return benchmark({"dense": dense, "again": dense}, runtime=runtime, seconds=2.0, rounds=2).ms["dense"]


def _identity(graph: DependencyGraph) -> str:
    """A hash of a network's calls, shapes and groups."""
    digest = hashlib.sha256(graph.form.encode())
    for node in graph.captured.graph.nodes:
        value = node.meta.get("val")
        made = (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else ()
        digest.update(f"{op_name(node.target)} {made} {node.args} {node.kwargs}".encode())
    for group in graph.groups:
        digest.update(f"{group.name} {group.units} {[(s.key, s.dim) for s in group.slices]}".encode())
    return digest.hexdigest()
