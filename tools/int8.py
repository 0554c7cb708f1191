"""Pruning beside and on top of int8: dense and slim, in float32 and int8, in onnxruntime.

    python tools/int8.py --json int8.json            # ten networks, about a quarter of an hour on two cores

Random weights, a batch of 1. The slim network has half of the MACs, shared by `knapsack`, with the channel counts that
onnxruntime is fast with in int8. int8 is onnxruntime's static quantiser (QDQ, a scale for each output channel), its
ranges from random inputs, which is enough for timing. All four files are timed in turns. The last column is the speed
gained by pruning where both are int8, divided by the MACs cut.

Exit codes: 0 done (also where a network fails), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import structprune as sp
from structprune.cost import learn_steps
from structprune.runtimes import Runtime
from structprune.suites.beside_peer import CUT, NETWORKS, machine
from structprune.suites.command_line import Parser, check_known, fail, record_each
from structprune.suites.timm_models import build, example
from structprune.suites.worker import one_line
from structprune.timm_names import architectures

Record = dict[str, Any]


def compare(name: str, seconds: float, threads: int) -> Record:
    model = build(name, "cpu", seed=0)
    x = example(model, "cpu", seed=0)
    runtime = Runtime(threads=threads, dtype="int8")
    graph = sp.trace(model, x)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": CUT}, align=learn_steps(runtime), allocation="knapsack")
    slim = sp.prune(model, plan)
    cut = plan.macs["dense"] / plan.macs["slim"]
    record: Record = {"model": name, "cut": cut, "gate": sp.verify(model, slim, plan, x).passed, "notes": plan.notes}
    with tempfile.TemporaryDirectory() as place:
        files = {}
        for kind, network in (("dense", model), ("slim", slim)):
            files[kind] = sp.export_onnx(network, x, Path(place) / f"{kind}.onnx")
            files[f"{kind}-int8"] = runtime.converted(files[kind])
        timed = sp.benchmark(files, threads=threads, seconds=seconds)
        record["bytes"] = {kind: path.stat().st_size for kind, path in files.items()}
    gained, interval = timed.ratio("dense-int8", "slim-int8")
    return {
        **record,
        "ms": timed.ms,
        "speedup": timed.speedup,
        "ci95": {kind: list(bounds) for kind, bounds in timed.ci95.items()},
        "int8_gained": gained,
        "int8_ci95": list(interval),
        "timing": timed.notes,
    }


def table(records: Sequence[Record]) -> Table:
    made = Table(title="times as fast as dense float32", title_justify="left")
    columns = ("network", "dense ms", "MACs cut", "slim", "dense-int8", "slim-int8", "slim-int8 ÷ dense-int8", "÷ cut")
    for column in columns:
        made.add_column(column, justify="left" if column == "network" else "right")
    for record in records:
        if "error" in record:
            made.add_row(record["model"], escape(record["error"]))
            continue
        low, high = record["int8_ci95"]
        made.add_row(
            record["model"],
            f"{record['ms']['dense']:.1f}",
            f"{record['cut']:.2f}×",
            *(f"{record['speedup'][kind]:.2f}×" for kind in ("slim", "dense-int8", "slim-int8")),
            f"{record['int8_gained']:.2f}× ({low:.2f}-{high:.2f})",
            f"{record['int8_gained'] / record['cut']:.2f}",
        )
    return made


def summary(records: Sequence[Record]) -> str:
    done = [record for record in records if "error" not in record]
    faster = [record for record in done if record["int8_ci95"][0] > 1]
    alone = [record["model"] for record in done if record["speedup"]["dense-int8"] > record["speedup"]["slim"]]
    return (
        f"slim-int8 is faster than dense-int8 on {len(faster)} of {len(records)}; int8 alone is faster than pruning "
        f"alone on {len(alone)}: {', '.join(alone) or '-'}"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--models", metavar="A,B", default=NETWORKS, help="timm names (ten)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for the timing of a network (20)")
    parser.add_argument("--threads", type=int, default=1, help="of onnxruntime (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, anew after each network")
    options = parser.parse_args(arguments)
    if not options.seconds > 0 or options.threads < 1:
        fail(f"--seconds {options.seconds:g}, --threads {options.threads}: give a number over 0, and 1 or more")
    options.models = [name.strip() for name in options.models.split(",") if name.strip()]
    for name in options.models:
        check_known("model", name.partition(".")[0], architectures())
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    command = shlex.join([Path(sys.executable).name, *sys.argv])

    def measure(name: str) -> Record:
        try:
            return compare(name, options.seconds, options.threads)
        except Exception as error:  # a network that can't be quantised is a result too
            return {"model": name, "error": f"{type(error).__name__}: {one_line(error, 160)}"}

    about = {"command": command, "machine": machine()}
    records = record_each(options.models, measure, options.json, lambda _: about)
    Console(width=None if sys.stdout.isatty() else 140).print(table(records))
    print(summary(records))
    print(command)


if __name__ == "__main__":
    main()
