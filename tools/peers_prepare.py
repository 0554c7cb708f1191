"""Preparation by structprune and by torch-pruning, side by side on the smallest model of each of timm's families.

    python tools/peers_prepare.py --json peers-prepare.json     # all that tools/zoo.py found to be the smallest

Preparation is the time from the dense network to the slim one, with random weights, a batch of 1, one thread:
structprune traces, scores (`group_l1`), plans half of the MACs (or the smallest budget that can be met) and prunes;
torch-pruning builds its graph and prunes each layer by half (`GroupMagnitudeImportance(p=1)`), with fused attention
off and `num_heads` given as its own example for timm does. It can do a model if the pruned one then runs and its
output has the shape it had (--attn-dim lets it do more). Each model has its own process. First runs and the search
for a budget do not count; then all take turns on fresh copies. Seconds and ratios are medians of the turns.

Exit codes: 0 done (also where a tool fails on a model), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import gc
import json
import math
import os
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import structprune as sp
from structprune.compare.peer import prune_by_ratio, without_fused_attention
from structprune.errors import BudgetError
from structprune.ops import Inputs, capture
from structprune.suites.beside_peer import OURS, THEIRS, machine, prune_by_plan
from structprune.suites.command_line import Parser, check_known, fail, interrupt
from structprune.suites.planning import smallest_budget
from structprune.suites.timm_models import build, example
from structprune.suites.worker import one_line
from structprune.timm_names import architectures

Record = dict[str, Any]
SMALLEST = Path(__file__).resolve().parents[1] / "build" / "zoo" / "results.json"
CAPTURE, TRACE = "capture", "trace"
MEMORY = 10 * 2**30  # bytes of data that a child may hold
SHARE = 0.5  # of the MACs that stay; of each layer's channels that torch-pruning takes
torch.set_num_threads(1)


def fresh(model: nn.Module, tool: str) -> nn.Module:
    return without_fused_attention(model) if tool == THEIRS else copy.deepcopy(model)


def reachable(model: nn.Module, x: Tensor) -> float:
    """`SHARE`, or the smallest share of the MACs over it that a plan can meet."""
    graph = sp.trace(model, x)
    scores = sp.score(graph, "group_l1")
    try:
        sp.plan(graph, scores, {"macs": SHARE}, align=1)
    except BudgetError as error:
        return min(smallest_budget(graph, scores, 0.0, error) + 1e-9, 1.0)  # 1 - (1 - budget) may lose a bit
    return SHARE


def measure(task: Record) -> None:
    """The child's main: tells the record at each stage; what models and tools print goes to the error stream."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    record: Record = {"model": task["model"], "nodes": None, "budget": None, "errors": {}, "seconds": {}}

    def at(stage: str) -> None:
        record["stage"] = stage
        print(json.dumps(record), file=answers)
        faulthandler.dump_traceback_later(task["timeout"] * (1 if stage == THEIRS else 6), exit=True)

    at("build")
    x = example(model := build(task["model"], "cpu", seed=0), "cpu", seed=0)
    work: dict[str, Callable[[nn.Module], Any]] = {
        CAPTURE: lambda given: capture(given, Inputs.of(x)),
        TRACE: lambda given: sp.trace(given, x),
        OURS: lambda given: prune_by_plan(given, x, 1 - record["budget"], 1),
        THEIRS: lambda given: prune_by_ratio(given, x, SHARE, attn_dim=task["attn_dim"]),
    }
    for tool in list(work) if task["theirs"] else [CAPTURE, TRACE, OURS]:
        at(tool)
        try:
            if tool == OURS:
                record["budget"] = reachable(model, x)
            made = work[tool](fresh(model, tool))
            if tool == TRACE:
                record["nodes"] = made.nodes
            elif tool == THEIRS and (found := shapes(made, x)) != (expected := shapes(model, x)):
                raise RuntimeError(f"the pruned network's output is {found} instead of {expected}")
            record["seconds"][tool] = []
        except Exception as error:  # what a tool raises is part of the comparison, whatever it is
            record["errors"][tool] = f"{type(error).__name__}: {one_line(error, 160)}".rstrip(": ")
    for turn in range(task["repeats"]):
        for tool in list(record["seconds"])[:: -1 if turn % 2 else 1]:
            at(tool)
            given = fresh(model, tool)
            gc.collect()  # or one tool pays for the other's cycles
            start = time.perf_counter()
            work[tool](given)
            record["seconds"][tool].append(time.perf_counter() - start)
    at("done")


def shapes(model: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    with torch.no_grad():
        return [tuple(leaf.shape) for leaf in pytree.tree_leaves(model(x))]


def in_process(task: Record) -> Record:
    """What a child told last, and how it ended if that was not the end; torch-pruning is left out if it ended it."""
    command = [sys.executable, __file__, "--child", json.dumps(task)]
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    child = subprocess.run(command, capture_output=True, env={**os.environ, **threads}, start_new_session=True)
    record: Record = {"model": task["model"], "stage": "start", "errors": {}, "seconds": {}}
    record = json.loads((child.stdout.splitlines() or [json.dumps(record).encode()])[-1])
    if record["stage"] != "done":
        said = child.stderr.decode(errors="replace").strip()
        died = f"died with exit code {child.returncode}: {said.splitlines()[-1][:160] if said else ''}"
        record["errors"][record["stage"]] = "timed out" if "\nTimeout (" in f"\n{said}" else died
    if record["stage"] == THEIRS:
        again = in_process({**task, "theirs": False})
        return {**again, "errors": {**again["errors"], THEIRS: record["errors"][THEIRS]}}
    return record


def seconds(record: Record, tool: str) -> float:
    return statistics.median(record["seconds"].get(tool) or [math.nan])


def ratio(record: Record, tool: str = OURS) -> float:
    """Of the seconds to torch-pruning's; NaN unless both have some."""
    pairs = zip(record["seconds"].get(tool, ()), record["seconds"].get(THEIRS, ()), strict=False)
    return statistics.median([a / b for a, b in pairs] or [math.nan])


def summary(records: Sequence[Record]) -> Record:
    both = [record for record in records if ratio(record) > 0]
    made: Record = {"models": len(records), "both": len(both)}
    for tool in (OURS, CAPTURE) if both else ():
        total, theirs = (sum(seconds(record, name) for record in both) for name in (tool, THEIRS))
        made[tool] = {"sum": total / theirs, "median": statistics.median(ratio(record, tool) for record in both)}
    for tool in (CAPTURE, TRACE):
        timed = [(seconds(record, tool), record["model"]) for record in records if record["seconds"].get(tool)]
        made[f"longest_{tool}"] = max(timed, default=(0.0, "-"))
    return made


def show(records: Sequence[Record], console: Console, found: Record) -> None:
    made = Table("model", "nodes", OURS, THEIRS, "ratio", CAPTURE, "errors", title="Preparation in seconds, one thread")
    for column in made.columns[1:6]:
        column.justify = "right"
    for record in records:
        numbers = (seconds(record, OURS), seconds(record, THEIRS), ratio(record), seconds(record, CAPTURE))
        cells = ["-" if math.isnan(number) else f"{number:.2f}" for number in numbers]
        errors = "; ".join(f"{stage}: {error}" for stage, error in record["errors"].items())
        made.add_row(record["model"], str(record.get("nodes") or "-"), *cells, escape(errors))
    console.print(made)
    print(f"{THEIRS} and {OURS} can both do {found['both']} of {found['models']} models")
    for tool, what in ((OURS, f"{OURS}'s seconds"), (CAPTURE, f"{OURS}'s capture alone")):
        if tool in found:
            print(f"{what} ÷ {THEIRS}'s on these: sum {found[tool]['sum']:.2f}, median {found[tool]['median']:.2f}")
    for tool in (CAPTURE, TRACE):
        print("longest {} of all: {:.2f} s ({})".format(tool, *found[f"longest_{tool}"]))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--models", metavar="A,B", default="", help="timm names (the smallest model of each family)")
    parser.add_argument("--repeats", type=int, default=3, help="turns that are timed (3)")
    parser.add_argument("--timeout", type=float, default=100.0, help="seconds for a run of torch-pruning (100)")
    parser.add_argument("--attn-dim", action="store_true", help="set attn_dim too, which that example does not know")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, anew after each model")
    options = parser.parse_args(arguments)
    if options.repeats < 1 or not options.timeout > 0:
        fail(f"--repeats {options.repeats}, --timeout {options.timeout:g}: give 1 or more, and a number over 0")
    options.models = [name.strip() for name in options.models.split(",") if name.strip()]
    try:
        chosen = {} if options.models else json.loads(SMALLEST.read_text(encoding="utf-8"))["smallest"]
    except (OSError, ValueError, KeyError):
        fail(f"{SMALLEST} does not name the smallest models: run tools/zoo.py first, or give --models")
    options.models += [entry["model"] for entry in chosen.values() if entry["model"]]
    for name in options.models:
        check_known("model", name.partition(".")[0], architectures())
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    asked = {key: getattr(options, key) for key in ("repeats", "timeout", "attn_dim")}
    records: list[Record] = []
    try:
        about = {"command": shlex.join([Path(sys.executable).name, *sys.argv]), "machine": machine()}
        for number, name in enumerate(options.models, start=1):
            print(f"{name} ({number} of {len(options.models)})", file=sys.stderr)
            records.append(in_process({"model": name, "theirs": True, **asked}))
            if options.json:
                data = {**about, "asked": asked, "summary": summary(records), "models": records}
                options.json.parent.mkdir(parents=True, exist_ok=True)
                aside = options.json.with_name(options.json.name + ".part")
                aside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
                os.replace(aside, options.json)
    except KeyboardInterrupt:
        print(f"interrupted after {len(records)} models; --json has what is done", file=sys.stderr)
        raise SystemExit(130) from None
    show(records, Console(width=None if sys.stdout.isatty() else 160), summary(records))
    print(about["command"])


if __name__ == "__main__":
    measure(json.loads(sys.argv[2])) if sys.argv[1:2] == ["--child"] else main()
