"""How much faster half of the MACs makes a network in onnxruntime: structprune and torch-pruning side by side.

    python tools/speed.py --json speed.json            # ten networks, about an hour on two cores
    python tools/speed.py --models resnet18 --seconds 10

Random weights, a batch of 1. torch-pruning prunes each layer by the share that comes nearest to half of the MACs, with
widths rounded to nothing, 8 and 16. structprune plans four times, but for the second by `knapsack`:

- `macs: 0.5` and the greatest `speedup` up to 2.1 for which, by the costs that it learned, no more than half of the
  MACs have to go (again with costs corrected, if 2.1 was expected and less than 2 measured); if torch-pruning with 16
  was measured to be as fast, the same with the MACs that it has left, where these are fewer; and if it still is, a
  `speedup` 3 % over its own, whatever MACs that takes;
- *most efficient*: half of the MACs, and the greatest efficiency that a search by the learned costs finds among
  networks that keep no less than torch-pruning's with 16 (structprune/suites/efficiency.py);
- *at its speed*: a `speedup` 2 % over what torch-pruning with 16 was measured to have, and nothing else;
- *speedup 2*: `speedup: 2.0` alone.

All ONNX files are then timed in turns, in one run.

Efficiency is speedup ÷ MACs cut. *Kept* is the geometric mean, over convolutions and linear layers, of the share of
outputs that stay; with random weights that is the importance kept. An exception is shown in the
row of the tool that raised it.

Exit codes: 0 done (also where a tool fails on a network), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

import structprune as sp
from structprune.compare.peer import total_macs
from structprune.cost import CostModel, learn_cost, plan_measured
from structprune.errors import BudgetError
from structprune.plan.allocations import Allocate
from structprune.suites.beside_peer import CUT, NETWORKS, OURS, ROUNDINGS, THEIRS, machine, prune_by_peer, share_kept
from structprune.suites.command_line import Parser, check_known, fail
from structprune.suites.efficiency import SPARED, most_efficient
from structprune.suites.results import record_each
from structprune.suites.timm_models import build, example
from structprune.suites.worker import one_line
from structprune.timm_names import architectures

MOST = 1.05  # the speedup that is looked for, times the MACs cut that is asked for
LEVEL = 1.02  # times its speed, to be as fast
OUTRUN = 1.03  # times the speed of torch-pruning's: plans are measured to be within 3 % of what was asked
TRIES = 3  # where it was expected, and not measured
EFFICIENT, AT_ITS_SPEED, ALONE = (f"{OURS}, {what}" for what in ("most efficient", "at its speed", "speedup 2"))
Record = dict[str, Any]


def fastest(planned: Callable[[dict[str, float]], sp.Plan], share: float) -> sp.Plan:
    """The plan with a share of the MACs and the greatest speedup, by costs as learned, up to little over 1 ÷ share."""
    low, high, best = 1.0, MOST / share, planned({"macs": share})
    for _ in range(6):
        middle = (low + high) / 2
        try:
            found = planned({"macs": share, "speedup": middle})
        except BudgetError:
            high = middle
            continue
        if found.macs["slim"] >= SPARED * share * found.macs["dense"]:
            low, best = middle, found
        else:
            high = middle
    return best


def compare(name: str, options: argparse.Namespace, console: Console) -> Record:
    model = build(name, "cpu", seed=0)
    x = example(model, "cpu", seed=0)
    dense_macs = total_macs(model, x)
    record: Record = {"model": name, "macs": dense_macs, "rows": {}}
    rows = record["rows"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = {"dense": sp.export_onnx(model, x, folder / "dense.onnx")}

        def add(row: str, slim: nn.Module, seconds: float, **more: Any) -> None:
            macs = total_macs(slim, x)
            files[row] = sp.export_onnx(slim, x, folder / f"{len(files)}.onnx")
            rows[row] = {
                "macs": macs,
                "cut": dense_macs / macs,
                "kept": share_kept(model, slim),
                "prepare_s": seconds,
                **more,
            }

        for align in ROUNDINGS:
            row = f"{THEIRS}, {align}" if align > 1 else THEIRS
            start = time.perf_counter()
            try:
                add(row, prune_by_peer(model, x, align), time.perf_counter() - start)
            except Exception as error:  # what a tool raises is part of the comparison, whatever it is
                rows[row] = {"error": f"{type(error).__name__}: {one_line(error, 120)}"}
        peer = f"{THEIRS}, {ROUNDINGS[-1]}"
        its_speed = its_cut = 0.0
        if peer in files:
            timed = sp.benchmark({"dense": files["dense"], peer: files[peer]}, seconds=options.seconds / 3)
            its_speed, its_cut = timed.speedup[peer], rows[peer]["cut"]
        start = time.perf_counter()
        graph = sp.trace(model, x)
        scores = sp.score(graph, "l1")
        cost = learn_cost(graph, seconds=options.learn)
        learned = time.perf_counter() - start
        record["cost_error"], record["learn_s"] = cost.error, learned

        def planned(cost: CostModel, budget: dict[str, float], sharing: str | Allocate = "knapsack") -> sp.Plan:
            return sp.plan(graph, scores, budget, cost=cost, align=cost.multiples, allocation=sharing)

        def measured(budget: dict[str, float]) -> sp.Plan:
            return plan_measured(graph, budget, cost, lambda cost: planned(cost, budget), dense=files["dense"])

        def at(share: float) -> tuple[float, sp.Plan]:
            made: list[tuple[float, sp.Plan]] = []
            expected, corrected = MOST / share, cost
            while len(made) < TRIES and expected > 0.98 * MOST / share and all(speed < 1 / share for speed, _ in made):
                plan = fastest(lambda budget, cost=corrected: planned(cost, budget), share)
                slim = sp.export_onnx(sp.prune(model, plan), x, folder / "tried.onnx")
                timed = sp.benchmark({"dense": files["dense"], "slim": slim}, seconds=options.seconds / 3)
                made.append((timed.speedup["slim"], plan))
                assert plan.latency is not None
                expected = plan.latency["dense"] / plan.latency["slim"]
                corrected = corrected.corrected(expected / timed.speedup["slim"])
            return max(made, key=lambda pair: pair[0])

        def at_half() -> sp.Plan:
            speed, plan = at(CUT)
            if speed < 1.01 * its_speed and its_cut > 1 / CUT:
                speed, plan = at(1 / its_cut)
            return plan if speed >= 1.01 * its_speed else measured({"macs": CUT, "speedup": OUTRUN * its_speed})

        plans: dict[str, Callable[[], sp.Plan]] = {OURS: at_half}
        if its_speed:
            searched = most_efficient(model, rows[peer]["kept"], options.tries)
            plans[EFFICIENT] = lambda: planned(cost, {"macs": CUT, "speedup": 1.01}, searched)
        if its_speed > 1:
            plans[AT_ITS_SPEED] = lambda: measured({"speedup": LEVEL * its_speed})
        plans[ALONE] = lambda: measured({"speedup": 2.0})
        for row, make in plans.items():
            start = time.perf_counter()
            try:
                plan = make()
                slim = sp.prune(model, plan)
                gate = sp.verify(model, slim, plan, x)
                add(row, slim, time.perf_counter() - start, asked=plan.budget, gate=gate.passed, notes=plan.notes)
            except Exception as error:
                rows[row] = {"error": f"{type(error).__name__}: {one_line(error, 160)}"}
        timed = sp.benchmark(files, seconds=options.seconds, rounds=10)
    record["dense_ms"] = timed.ms["dense"]
    for row in timed.speedup:
        speedup = timed.speedup[row]
        rows[row] |= {"speedup": speedup, "ci95": list(timed.ci95[row]), "efficiency": speedup / rows[row]["cut"]}
    console.print(table(record))
    return record


def table(record: Record) -> Table:
    made = Table(title=f"{record['model']}: {record['dense_ms']:.1f} ms, {record['macs']:,} MACs", title_justify="left")
    for column in ("", "MACs cut", "measured", "95 %", "efficiency", "kept", "seconds", "gate", "error"):
        made.add_column(column, justify="left" if column in ("", "error") else "right", overflow="fold")
    for name, row in record["rows"].items():
        if "error" in row:
            made.add_row(name, *["-"] * 7, escape(row["error"]))
            continue
        low, high = row["ci95"]
        gate = {True: "passed", False: "FAILED", None: "-"}[row.get("gate")]
        numbers = (f"{row['cut']:.2f}×", f"{row['speedup']:.2f}×", f"{low:.2f}-{high:.2f}", f"{row['efficiency']:.2f}")
        made.add_row(name, *numbers, f"{row['kept']:.3f}", f"{row['prepare_s']:.0f}", gate, "")
    return made


def not_worse(row: Record, than: Record) -> bool:
    return row.get("kept", 0.0) >= than["kept"] and row.get("speedup", 0.0) >= 0.99 * than["speedup"]


def summary(records: Sequence[Record]) -> list[str]:
    def speed(record: Record, row: str) -> float:
        return record["rows"].get(row, {}).get("speedup", math.nan)

    def efficient(row: str) -> str:
        reached = [record["rows"].get(row, {}).get("efficiency", 0.0) for record in records]
        counts = (sum(e >= least for e in reached) for least in (0.95, 0.85))
        return "0.95 or more on {}, 0.85 or more on {} of {}".format(*counts, len(records))

    peer = f"{THEIRS}, {ROUNDINGS[-1]}"
    both = [r for r in records if speed(r, peer) > 0]
    not_slower = [r for r in both if speed(r, OURS) >= 0.99 * speed(r, peer)]
    level = [r for r in both if speed(r, AT_ITS_SPEED) >= 0.97 * speed(r, peer)]  # the tolerance of budgets of speed
    more = [r for r in level if r["rows"][AT_ITS_SPEED]["kept"] > r["rows"][peer]["kept"]]
    better = [r for r in both if not_worse(r["rows"].get(EFFICIENT, {}), r["rows"][peer])]
    met = [r for r in records if abs(speed(r, ALONE) / 2 - 1) <= 0.05]
    return [
        f"efficiency at 2x MACs: {efficient(OURS)}",
        f"where it is sought: {efficient(EFFICIENT)}; no less kept than {THEIRS} with 16 nor slower: {len(better)}",
        f"not slower (by over 1 %) than {THEIRS} with 16: {len(not_slower)} of {len(both)} that it can do",
        f"more kept at the speed of {THEIRS} with 16: {len(more)} of {len(level)} that are as fast",
        f"speedup 2.0 reached within 5 %: {len(met)} of {len(records)}",
    ]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--models", metavar="A,B", default=NETWORKS, help="timm names (ten)")
    parser.add_argument("--seconds", type=float, default=30.0, help="for the last timing of a network (30)")
    parser.add_argument("--learn", type=float, default=60.0, help="for learning what its widths cost (60)")
    parser.add_argument("--tries", type=int, default=3000, help="moves of the search for efficiency (3000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, anew after each network")
    options = parser.parse_args(arguments)
    if min(options.seconds, options.learn, options.tries) <= 0:
        given = f"--seconds {options.seconds:g}, --learn {options.learn:g}, --tries {options.tries}"
        fail(f"{given}: give numbers over 0")
    options.models = [name.strip() for name in options.models.split(",") if name.strip()]
    for name in options.models:
        check_known("model", name.partition(".")[0], architectures())
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 150)
    about = {"command": shlex.join([Path(sys.executable).name, *sys.argv]), "machine": machine()}
    records = record_each(
        options.models,
        lambda name: compare(name, options, console),
        options.json,
        lambda records: {**about, "summary": summary(records), "networks": records},
    )
    print("\n".join(summary(records)))
    print(about["command"])


if __name__ == "__main__":
    main()
