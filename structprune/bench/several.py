"""Dense and slim timed in several engines, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from ..progress import Reporter
from .engines import OF_FILES, Module, engine_name
from .latency import benchmark
from .runtime import Runtime


class Asked(Protocol):
    """An engine, and its threads and batch where they are not those of the plan's runtime."""

    @property
    def engine(self) -> str: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def batch(self) -> int | None: ...


def time_engines(
    asked: Sequence[Asked],
    networks: Mapping[str, nn.Module],
    paths: Mapping[str, Path],
    sample: Tensor,
    *,
    runtime: Runtime,
    seconds: float,
    reporter: Reporter,
) -> list[dict[str, Any]]:
    """For each engine what `networks` (`dense` and `slim`, whose ONNX files are `paths`) took; or its error, if it
    can't run them. `sample` is one input, of shape (1, ...)."""
    rows = []
    for spec in asked:
        threads, batch = spec.threads or runtime.threads, spec.batch or runtime.batch
        row: dict[str, Any] = {"engine": engine_name(spec.engine), "threads": threads, "batch": batch}
        inputs = [sample.expand(batch, *sample.shape[1:]).contiguous()]
        modules = {kind: Module(network, inputs) for kind, network in networks.items()}
        reporter.stage(f"timing dense and slim in {spec.engine}, {threads} threads, batch {batch}")
        try:
            with reporter.bar(f"timing in {spec.engine}") as update:
                timed = benchmark(
                    paths if spec.engine in OF_FILES else modules,
                    batch=batch,
                    threads=threads,
                    seconds=seconds,
                    engine=spec.engine,
                    progress=update,
                )
        except Exception as error:  # what an engine raises is what is to be known of it
            text = (str(error).strip().splitlines() or [""])[0]
            rows.append({**row, "error": f"{type(error).__name__}: {text[:200]}"})
            continue
        found = {"dense_ms": timed.ms["dense"], "slim_ms": timed.ms["slim"], "speedup": timed.speedup["slim"]}
        rows.append({**row, **found, "ci95": list(timed.ci95["slim"]), "notes": timed.notes, "error": None})
    return rows
