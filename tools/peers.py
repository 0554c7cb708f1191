"""structprune and torch-pruning side by side: the same timm networks, random weights and budget of MACs.

    python tools/peers.py --models resnet18,mobilenetv2_100 --cut 0.5 --align 8 --seconds 10 --json peers.json

Both prune every layer by the same share (uniform) and rank units by the L1 norm of all that is coupled
(`group_l1`; `GroupMagnitudeImportance(p=1)` with its own normalisation); the classifier's outputs stay.
torch-pruning takes a pruning ratio and no budget, so the ratio that comes nearest to the budget is searched
for first. Preparation is the time from the dense network to the slim one: trace, score, plan and surgery.
torch-pruning's is at the ratio found already, the search is listed apart; structprune's holds its search. The
tools take turns, after a run of each that does not count.

MACs are fvcore's count on the finished networks. The gate is structprune's comparison with the masked dense
network; torch-pruning has none ("-"). Latencies come from one interleaved benchmark of the ONNX files. An
exception is printed in the row of the tool that raised it. Meant for convolutional networks: torch-pruning
would need fused attention to be off for others, which this script leaves on.

Exit codes: 0 done (also where a tool fails on a network), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

import structprune as sp  # before timm and torch-pruning: it declares torchvision's op names
from structprune.compare.peer import SEARCH_STEPS, prune_by_ratio, search_ratio, total_macs
from structprune.errors import StructPruneError
from structprune.messages import unknown
from structprune.models import build_model
from structprune.recipe import ModelSpec
from structprune.runtimes import Benchmark
from structprune.suites.beside_peer import OURS, THEIRS, machine, prune_by_plan
from structprune.suites.command_line import Parser, fail
from structprune.timm_names import architectures


@dataclass
class Result:
    """What one tool made of one network; `error` says where it stopped, and what is missing then is None."""

    tool: str
    slim: nn.Module | None = None
    macs: int | None = None
    params: int | None = None
    gate: bool | None = None
    ratio: float | None = None
    search_s: float | None = None
    prepare_s: list[float] = field(default_factory=list)
    ms: float | None = None
    speedup: float | None = None
    ci95: tuple[float, float] | None = None
    error: str = ""

    def stop(self, stage: str, error: Exception) -> None:
        text = " ".join(str(error).split())
        self.error, self.slim = f"{stage}: {type(error).__name__}: {text}".rstrip(": "), None

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "slim"}


@dataclass
class Comparison:
    """One network: the dense counts, a result for each tool, and the benchmark they share."""

    model: str
    input: tuple[int, ...]
    macs: int
    params: int
    results: list[Result]
    benchmark: Benchmark | None = None
    benchmark_error: str = ""

    @property
    def prepare_ratios(self) -> list[float]:
        """torch-pruning's time divided by structprune's, turn by turn; empty if a tool failed."""
        ours, theirs = self.results
        if len(ours.prepare_s) != len(theirs.prepare_s):
            return []
        return [b / a for a, b in zip(ours.prepare_s, theirs.prepare_s, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "input": list(self.input),
            "dense": {"macs": self.macs, "params": self.params},
            "results": [result.to_dict() for result in self.results],
            "prepare_ratios": self.prepare_ratios,
            "benchmark": self.benchmark.to_data() if self.benchmark else None,
            "benchmark_error": self.benchmark_error,
        }


# --- one network -------------------------------------------------------------------------------------------


def compare(name: str, options: argparse.Namespace) -> Comparison:
    model = build_model(ModelSpec(name=name), options.seed)
    from timm.data import resolve_model_data_config

    size = tuple(resolve_model_data_config(model)["input_size"])
    x = torch.randn(1, *size, generator=torch.Generator().manual_seed(options.seed))
    ours, theirs = Result(OURS), Result(THEIRS)
    dense = total_macs(model, x)
    compared = Comparison(name, size, dense, total_params(model), [ours, theirs])
    plan = None
    stage = "prune"
    try:
        ours.slim, plan = prune_by_plan(model, x, options.cut, options.align)
        stage = "count"
        _count(ours, x)
        ours.gate = sp.verify(model, ours.slim, plan, x).passed
    except Exception as error:  # what a tool raises is part of the comparison, whatever it is
        ours.stop(stage, error)
    stage = "prune"
    try:
        start = time.perf_counter()
        theirs.ratio = search_ratio(model, x, round(dense * (1 - options.cut)), options.align)
        theirs.search_s = time.perf_counter() - start
        theirs.slim = prune_by_ratio(copy.deepcopy(model), x, theirs.ratio, options.align)
        stage = "count"
        _count(theirs, x)
    except Exception as error:
        theirs.stop(stage, error)
    _time_preparation(model, x, compared, options)
    _time_inference(model, x, compared, options)
    ours.slim = theirs.slim = None  # measured: free the memory
    return compared


def _count(result: Result, x: Tensor) -> None:
    assert result.slim is not None
    result.macs, result.params = total_macs(result.slim, x), total_params(result.slim)


def _time_preparation(model: nn.Module, x: Tensor, compared: Comparison, options: argparse.Namespace) -> None:
    """Seconds of each turn; both tools ran once before, so that imports and caches are not counted."""
    working = [result for result in compared.results if result.slim is not None]
    for turn in range(options.repeats):
        for result in working if turn % 2 == 0 else working[::-1]:
            given = model if result.tool == OURS else copy.deepcopy(model)  # theirs changes what it gets
            gc.collect()  # or one tool pays for the other's cycles
            start = time.perf_counter()
            if result.tool == OURS:
                prune_by_plan(given, x, options.cut, options.align)
            else:
                assert result.ratio is not None
                prune_by_ratio(given, x, result.ratio, options.align)
            result.prepare_s.append(time.perf_counter() - start)


def _time_inference(model: nn.Module, x: Tensor, compared: Comparison, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = {"dense": sp.export_onnx(model, x, Path(folder) / "dense.onnx")}
        except StructPruneError as error:
            compared.benchmark_error = str(error)
            return
        for result in compared.results:
            if result.slim is None:
                continue
            try:
                files[result.tool] = sp.export_onnx(result.slim, x, Path(folder) / f"{result.tool}.onnx")
            except Exception as error:
                result.stop("export", error)
        if len(files) == 1:
            return
        try:
            timed = compared.benchmark = sp.benchmark(files, threads=options.threads, seconds=options.seconds)
        except Exception as error:  # onnxruntime's exceptions share no base
            compared.benchmark_error = f"benchmark: {type(error).__name__}: {' '.join(str(error).split())}"
            return
        for result in compared.results:
            if result.tool in timed.speedup:
                result.ms, result.speedup = timed.ms[result.tool], timed.speedup[result.tool]
                result.ci95 = timed.ci95[result.tool]


def total_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- printing ----------------------------------------------------------------------------------------------


def table(comparisons: Sequence[Comparison], options: argparse.Namespace) -> Table:
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    made = Table(
        title=f"{100 * options.cut:g} % of the MACs to be cut, align {options.align}, {threads}",
        title_justify="left",
    )
    left = ("network", "tool", "gate")
    for column in ("network", "tool", "MACs", "params", "gate", "prepare", "latency", "faster (95 %)"):
        made.add_column(column, justify="left" if column in left else "right", no_wrap=column in left)
    for compared in comparisons:
        dense_ms = f"{compared.benchmark.ms['dense']:.2f} ms" if compared.benchmark else "-"
        macs, params = f"{compared.macs / 1e6:,.0f} M", f"{compared.params / 1e6:.2f} M"
        made.add_row(compared.model, "dense", macs, params, "-", "-", dense_ms, escape(compared.benchmark_error) or "-")
        for result in compared.results:
            made.add_row("", result.tool, *_cells(result, compared), end_section=result is compared.results[-1])
    return made


def _cells(result: Result, compared: Comparison) -> list[str]:
    faster = "-"
    if result.error:
        faster = f"[red]{escape(result.error)}[/red]"
    elif result.speedup is not None and result.ci95 is not None:
        faster = f"{result.speedup:.2f}× ({result.ci95[0]:.2f} to {result.ci95[1]:.2f})"
    return [
        f"÷ {compared.macs / result.macs:.3f}" if result.macs else "-",
        f"÷ {compared.params / result.params:.3f}" if result.params else "-",
        "-" if result.gate is None else "passed" if result.gate else "[red]failed[/red]",
        f"{statistics.median(result.prepare_s):.2f} s" if result.prepare_s else "-",
        f"{result.ms:.2f} ms" if result.ms is not None else "-",
        faster,
    ]


def remarks(compared: Comparison) -> list[str]:
    lines = []
    ratios, theirs = compared.prepare_ratios, compared.results[1]
    if ratios:
        lines.append(
            f"{compared.model}: preparation by {THEIRS} took {statistics.median(ratios):.2f}× as long as by {OURS} "
            f"(median of {len(ratios)} paired turns, {min(ratios):.2f} to {max(ratios):.2f})"
        )
    if theirs.search_s is not None:
        lines.append(
            f"{compared.model}: finding {THEIRS}'s ratio {theirs.ratio:.4f} took {theirs.search_s:.2f} s (at most "
            f"{SEARCH_STEPS} prunings and counts), which is not in its preparation"
        )
    return lines


# --- command line ------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--models", default="resnet18,mobilenetv2_100,regnetx_002", help="timm names, by commas")
    parser.add_argument("--cut", type=float, default=0.5, help="share of the MACs to be cut, between 0 and 1")
    parser.add_argument("--align", type=int, default=1, help="widths are multiples of this (round_to of the peer)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time of one network's latencies")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of onnxruntime, for all")
    parser.add_argument("--repeats", type=int, default=3, help="paired turns in which preparation is timed")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the input")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here as well")
    options = parser.parse_args(arguments)
    options.models = [name.strip() for name in options.models.split(",") if name.strip()]
    if not options.models:
        fail("--models is empty: give timm names, for example resnet18,mobilenetv2_100")
    if not 0 < options.cut < 1:
        fail(f"--cut {options.cut:g}: give a share between 0 and 1, for example 0.5")
    for name in ("align", "threads", "repeats"):
        if getattr(options, name) < 1:
            fail(f"--{name} {getattr(options, name)}: give 1 or more")
    if not 0 < options.seconds < math.inf:
        fail(f"--seconds {options.seconds:g}: give a number over 0")
    if options.json and not options.json.absolute().parent.is_dir():
        fail(f"--json {options.json}: the folder {options.json.parent} does not exist")
    for name in options.models:
        if name.partition(".")[0] not in architectures():
            fail(unknown("model", name, architectures()))
    try:
        version(THEIRS)
    except PackageNotFoundError:
        fail(f"{THEIRS} is not installed: pip install {THEIRS}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    command = shlex.join([Path(sys.executable).name, *sys.argv])
    comparisons = []
    torch.set_num_threads(options.threads)  # beside other work, threads that wait for each other swamp small ops
    try:
        for number, name in enumerate(options.models, start=1):
            print(f"{name} ({number} of {len(options.models)})", file=sys.stderr)
            comparisons.append(compare(name, options))
    except StructPruneError as error:
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        raise SystemExit(130) from None
    console, described = Console() if sys.stdout.isatty() else Console(width=130), machine()
    console.print(table(comparisons, options))
    for compared in comparisons:
        for line in remarks(compared):
            console.print(line, highlight=False, soft_wrap=True)
    versions = ", ".join(f"{name} {number}" for name, number in described["packages"].items())
    console.print(
        f"{described['processor']}, {described['cores']} cores, {described['system']}, Python {described['python']}\n"
        f"{versions}\n{command}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        data = {
            "command": command,
            "settings": settings,
            "machine": described,
            "networks": [compared.to_dict() for compared in comparisons],
        }
        options.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
