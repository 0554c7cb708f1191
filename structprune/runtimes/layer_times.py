"""Where the time of networks goes, layer by layer."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from .engine import Network
from .latency import in_a_row, later_half
from .runtime import Runtime


def time_layers(
    models: Mapping[str, str | Path | Network],
    *,
    runtime: Runtime | None = None,
    seconds: float = 3.0,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, dict[str, float]]:
    """Times each layer of networks, in turns as `benchmark` does it.

    Kernels are timed one by one, so their sum is a little over what a whole run takes.

    Args:
        models: Networks by name, as the runtime opens them: ONNX files for onnxruntime.
        runtime: One that tells kernels' times; by default onnxruntime on the CPU.
        seconds: Of timing, in all.
        progress: Gets the share that is done.

    Returns:
        For each network the median milliseconds of each layer in one run, in the order in which layers run.
    """
    chosen = runtime or Runtime()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, chosen.active():
        sessions = {name: chosen.watch(model, Path(folder)) for name, model in models.items()}
        counts: dict[str, list[int]] = {name: [] for name in models}  # of the runs in each turn
        turns = 0
        while turns < 4 or time.perf_counter() - start < seconds:
            for name, session in sessions.items():
                counts[name].append(len(in_a_row(session.run, 2)))
            turns += 1
            progress(min(1.0, (time.perf_counter() - start) / seconds))
        result: dict[str, dict[str, float]] = {}
        for name, session in sessions.items():
            recorded = iter(session.kernels())
            runs = [run for count in counts[name] for run in later_half(list(islice(recorded, count)))]
            layers: dict[str, list[float]] = {}
            for number, run in enumerate(runs):
                for kernel in run:
                    each = layers.setdefault(kernel.layer, [0.0] * len(runs))
                    each[number] += kernel.microseconds / 1e3
            result[name] = {layer: statistics.median(each) for layer, each in layers.items()}
    return result
