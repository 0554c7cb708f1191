"""One network, pruned by both tools to the same budget of MACs, and timed in turns."""

from __future__ import annotations

import copy
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

import structprune as sp

from ...compare.peer import prune_by_ratio, search_ratio, total_macs
from ...errors import StructPruneError
from ..beside_peer import OURS, THEIRS, prune_by_plan
from ..timm_models import build, count, example
from ..worker import error_line
from .records import Comparison, Settings, ToolResult


def compare(name: str, settings: Settings) -> Comparison:
    """Prunes and times a timm model with random weights.

    Args:
        name: Of the model.
        settings: How it is pruned and timed.

    Returns:
        What was measured. What a tool raises stands in its result.

    Raises:
        StructPruneError: The dense network can't be counted.
    """
    model = build(name, "cpu", settings.seed)
    return compare_network(name, model, example(model, "cpu", settings.seed), settings)


def compare_network(name: str, model: nn.Module, x: Tensor, settings: Settings) -> Comparison:
    """Prunes and times a network.

    Args:
        name: What the record calls it.
        model: The dense network, which stays as it is.
        x: One image, as a batch.
        settings: How it is pruned and timed.

    Returns:
        What was measured. What a tool raises stands in its result.

    Raises:
        StructPruneError: The dense network can't be counted.
    """
    ours, theirs = ToolResult(OURS), ToolResult(THEIRS)
    comparison = Comparison(name, tuple(x.shape[1:]), total_macs(model, x), count(model), ours, theirs)
    slims = {}
    for result, prune in ((ours, _prune_ours), (theirs, _prune_theirs)):
        slim = prune(comparison, model, x, settings)
        if slim is not None:
            slims[result.tool] = slim
    _time_preparation([result for result in comparison.results if result.tool in slims], model, x, settings)
    _time_inference(comparison, {"dense": model, **slims}, x, settings)
    return comparison


def _prune_ours(comparison: Comparison, model: nn.Module, x: Tensor, settings: Settings) -> nn.Module | None:
    """structprune's slim network, counted and proven; None if it stops on the way."""
    result, stage = comparison.ours, "prune"
    try:
        slim, plan = prune_by_plan(model, x, settings.cut, settings.align)
        stage = "count"
        result.macs, result.params = total_macs(slim, x), count(slim)
        result.gate = sp.verify(model, slim, plan, x).passed
    except Exception as error:
        result.stop(stage, error)
        return None
    return slim


def _prune_theirs(comparison: Comparison, model: nn.Module, x: Tensor, settings: Settings) -> nn.Module | None:
    """torch-pruning's network at the ratio nearest to the budget, counted; None if it stops on the way."""
    result, stage = comparison.theirs, "prune"
    try:
        start = time.perf_counter()
        result.ratio = search_ratio(model, x, round(comparison.macs * (1 - settings.cut)), settings.align)
        result.search_s = time.perf_counter() - start
        slim = prune_by_ratio(copy.deepcopy(model), x, result.ratio, settings.align)
        stage = "count"
        result.macs, result.params = total_macs(slim, x), count(slim)
    except Exception as error:
        result.stop(stage, error)
        return None
    return slim


def _time_preparation(results: list[ToolResult], model: nn.Module, x: Tensor, settings: Settings) -> None:
    """Seconds of each turn; each tool ran once before, so that imports and caches are not counted."""
    for turn in range(settings.repeats):
        for result in results if turn % 2 == 0 else results[::-1]:
            prune = _preparation(result, model, x, settings)
            gc.collect()  # or one tool pays for the other's cycles
            start = time.perf_counter()
            prune()
            result.prepare_s.append(time.perf_counter() - start)


def _preparation(result: ToolResult, model: nn.Module, x: Tensor, settings: Settings) -> Callable[[], object]:
    """What a tool does from the dense network to the slim one; torch-pruning changes what it gets."""
    if result.tool == OURS:
        return lambda: prune_by_plan(model, x, settings.cut, settings.align)
    assert result.ratio is not None
    ratio, twin = result.ratio, copy.deepcopy(model)
    return lambda: prune_by_ratio(twin, x, ratio, settings.align)


def _time_inference(comparison: Comparison, networks: dict[str, nn.Module], x: Tensor, settings: Settings) -> None:
    """Latencies of the ONNX files of the dense network and of those that the tools made of it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = {"dense": sp.export_onnx(networks["dense"], x, Path(folder) / "dense.onnx")}
        except StructPruneError as error:
            comparison.benchmark_error = str(error)
            return
        for result in comparison.results:
            if result.tool not in networks:
                continue
            try:
                files[result.tool] = sp.export_onnx(networks[result.tool], x, Path(folder) / f"{result.tool}.onnx")
            except Exception as error:
                result.stop("export", error)
        if len(files) == 1:
            return
        try:
            timed = comparison.benchmark = sp.benchmark(files, threads=settings.threads, seconds=settings.seconds)
        except Exception as error:  # onnxruntime's exceptions share no base
            comparison.benchmark_error = f"benchmark: {error_line(error, 400)}"
            return
    for result in comparison.results:
        if result.tool in timed.speedup:
            result.ms, result.speedup = timed.ms[result.tool], timed.speedup[result.tool]
            result.ci95 = timed.ci95[result.tool]
