"""Dense and slim timed beside each other, and where the time goes. Timings are never kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ...data import Data
from ...runtimes import Runtime, benchmark, time_also, time_layers
from ...runtimes.other_runtimes import OtherRuntime
from ..stage import Work, stage


@stage(
    "timing",
    after="int8",
    needs=("dense", "slim", "samples", "dense_onnx", "slim_onnx", "int8_files?"),
    makes=("latency", "layers", "also"),
    spec=lambda recipe: {"runtime": recipe.runtime, "bench": recipe.bench, "also": recipe.also},
    sound_only=True,
)
def time_networks(
    work: Work,
    dense: nn.Module,
    slim: nn.Module,
    samples: Data,
    dense_onnx: Path,
    slim_onnx: Path,
    int8_files: Path | None,
) -> Mapping[str, Any]:
    runtime, bench = work.spec["runtime"].runtime(), work.spec["bench"]
    networks = {"dense": dense, "slim": slim}
    onnx = {"float32": {"dense": dense_onnx, "slim": slim_onnx}, "int8": {}}
    if int8_files is not None:
        onnx["int8"] = {kind: int8_files / f"{kind}-int8.onnx" for kind in networks}

    def opened(on: Runtime) -> dict[str, Any]:
        if on.files:
            return dict(onnx[on.dtype])
        return {kind: on.prepare(network, samples.example, Path()) for kind, network in networks.items()}

    timed = opened(dataclasses.replace(runtime, dtype="float32"))
    if runtime.files:
        timed |= {f"{kind}-int8": path for kind, path in onnx["int8"].items()}
    work.reporter.stage(f"timing {', '.join(timed)} in {runtime.engine}, {bench.seconds:g} s")
    with work.reporter.bar("timing") as update:
        latency = benchmark(timed, runtime=runtime, seconds=bench.seconds, pin=bench.pin, energy=True, progress=update)
    watcher = runtime
    if not runtime.tells_kernels:
        batch = runtime.batch if runtime.device == "cpu" else 1  # which a CPU runs here
        watcher = Runtime(runtime.threads, batch, runtime.dtype)
    layers = time_layers(opened(watcher), runtime=watcher, seconds=bench.seconds / 4)
    also: list[OtherRuntime] = []
    if work.spec["also"]:
        work.reporter.stage(f"timing dense and slim on other runtimes, {bench.seconds:g} s on each")
        with work.reporter.bar("timing") as update:
            also = time_also(work.spec["also"], opened, seconds=bench.seconds, pin=bench.pin, progress=update)
    return {"latency": latency, "layers": layers, "also": also}
