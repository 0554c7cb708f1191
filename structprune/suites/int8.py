"""Pruning beside and on top of int8: dense and slim, in float32 and int8, timed in turns in onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

import structprune as sp

from ..cost import learn_multiples
from ..runtimes import Runtime
from .beside_peer import CUT
from .results import Failure
from .timm_models import build, example

KINDS = ("slim", "dense-int8", "slim-int8")  # what is timed beside the dense network in float32
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Int8Record:
    """One network, dense and slim, in float32 and int8.

    Attributes:
        model: Its name.
        cut: Dense MACs ÷ slim MACs.
        gate: Whether the slim network in float32 passed the gate.
        notes: The plan's.
        bytes: The size of each ONNX file.
        ms: Milliseconds of a forward pass, of `dense` and each of `KINDS`.
        speedup: How many times as fast as `dense` each of `KINDS` is.
        ci95: Its 95 % interval.
        int8_gained: How many times as fast as `dense-int8` is `slim-int8`.
        int8_ci95: Its 95 % interval.
        timing: What disturbed the timing.
    """

    model: str
    cut: float
    gate: bool
    notes: list[str]
    bytes: dict[str, int]
    ms: dict[str, float]
    speedup: dict[str, float]
    ci95: dict[str, Bounds]
    int8_gained: float
    int8_ci95: Bounds
    timing: list[str]


def measure(name: str, seconds: float, threads: int) -> Int8Record | Failure:
    """Prunes a timm model with random weights, and times it.

    Args:
        name: Of the model.
        seconds: For timing.
        threads: Of onnxruntime.

    Returns:
        The record, or what was raised: a network that can't be quantised is a result too.
    """
    try:
        model = build(name, "cpu", seed=0)
        runtime = Runtime(threads=threads, dtype="int8")
        return compare(name, model, example(model, "cpu", seed=0), runtime, learn_multiples(runtime), seconds)
    except Exception as error:
        return Failure.of(name, error)


def compare(
    name: str, model: nn.Module, x: Tensor, runtime: Runtime, align: int | Mapping[str, int], seconds: float
) -> Int8Record:
    """Prunes a network to half of its MACs by `knapsack`, and times four files of it.

    Args:
        name: What the record calls it.
        model: The dense network.
        x: A batch of images.
        runtime: In int8; its threads are those of the timing.
        align: The multiples that the widths are of.
        seconds: For timing.

    Returns:
        The record.

    Raises:
        StructPruneError: The network can't be pruned, exported or quantised.
    """
    graph = sp.trace(model, x)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": CUT}, align=align, allocation="knapsack")
    slim = sp.prune(model, plan)
    passed = sp.verify(model, slim, plan, x).passed
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for kind, network in (("dense", model), ("slim", slim)):
            files[kind] = sp.export_onnx(network, x, Path(folder) / f"{kind}.onnx")
            files[f"{kind}-int8"] = runtime.converted(files[kind])
        timed = sp.benchmark(files, threads=runtime.threads, seconds=seconds)
        sizes = {kind: path.stat().st_size for kind, path in files.items()}
    gained, bounds = timed.ratio("dense-int8", "slim-int8")
    return Int8Record(
        model=name,
        cut=plan.macs["dense"] / plan.macs["slim"],
        gate=passed,
        notes=list(plan.notes),
        bytes=sizes,
        ms=dict(timed.ms),
        speedup=dict(timed.speedup),
        ci95=dict(timed.ci95),
        int8_gained=gained,
        int8_ci95=bounds,
        timing=list(timed.notes),
    )


def table(records: Sequence[Int8Record | Failure]) -> Table:
    """A line for each network: how many times as fast as in float32 and dense."""
    shown = Table(title="times as fast as dense float32", title_justify="left")
    for column in ("network", "dense ms", "MACs cut", *KINDS, "slim-int8 ÷ dense-int8", "÷ cut"):
        shown.add_column(column, justify="left" if column == "network" else "right")
    for record in records:
        if isinstance(record, Failure):
            shown.add_row(record.model, escape(record.error))
            continue
        low, high = record.int8_ci95
        shown.add_row(
            record.model,
            f"{record.ms['dense']:.1f}",
            f"{record.cut:.2f}×",
            *(f"{record.speedup[kind]:.2f}×" for kind in KINDS),
            f"{record.int8_gained:.2f}× ({low:.2f}-{high:.2f})",
            f"{record.int8_gained / record.cut:.2f}",
        )
    return shown


def summary(records: Sequence[Int8Record | Failure]) -> str:
    """On how many networks pruning is worth something in int8, and on which int8 alone is worth more than pruning."""
    measured = [record for record in records if isinstance(record, Int8Record)]
    faster = [record for record in measured if record.int8_ci95[0] > 1]
    alone = [record.model for record in measured if record.speedup["dense-int8"] > record.speedup["slim"]]
    return (
        f"slim-int8 is faster than dense-int8 on {len(faster)} of {len(records)}; int8 alone is faster than pruning "
        f"alone on {len(alone)}: {', '.join(alone) or '-'}"
    )
