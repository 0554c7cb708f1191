"""How near to the MACs cut the speedup can come at half of the MACs, and what that takes of the importance.

    python tools/limits.py --models vit_tiny_patch16_224,convnext_atto
    python tools/limits.py --tries 20000

Efficiency is speedup ÷ MACs cut. Four networks are timed beside the dense one:

- torch-pruning's with widths rounded to 16, nearest to half of the MACs;
- structprune's with the budget `macs: 0.5`, shared by `knapsack`;
- the most efficient that a local search finds among those that keep no less than torch-pruning's;
- the most efficient that it finds, whatever becomes of the importance.

What a network's widths cost is learned as tools/speed.py does it (and found on disk where that has run with the same
--learn). The search is that of structprune/suites/efficiency.py. *Kept* is, as in tools/speed.py, the geometric mean
over convolutions and linear layers of the share of outputs that stay.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import structprune as sp
from structprune.compare.peer import total_macs
from structprune.cost import learn_cost
from structprune.errors import BudgetError
from structprune.suites.beside_peer import CUT, NETWORKS, ROUNDINGS, THEIRS, prune_by_peer, share_kept
from structprune.suites.command_line import Parser, check_known, fail
from structprune.suites.efficiency import most_efficient
from structprune.suites.timm_models import build, example
from structprune.timm_names import architectures

PEER = f"{THEIRS}, {ROUNDINGS[-1]}"
LEVEL, BEST = "most efficient, no less kept", "most efficient"


def limits(name: str, options: argparse.Namespace) -> Table:
    model = build(name, "cpu", seed=0)
    x = example(model, "cpu", seed=0)
    graph = sp.trace(model, x)
    scores = sp.score(graph, "l1")
    cost = learn_cost(graph, seconds=options.learn)
    table = Table(title=f"{name}: costs off by {100 * cost.error:.1f} %, in the median", title_justify="left")
    for column in ("", "MACs cut", "predicted", "measured (95 %)", "efficiency", "kept"):
        table.add_column(column, justify="right" if column else "left")
    peer = prune_by_peer(model, x, ROUNDINGS[-1])
    searched = {LEVEL: share_kept(model, peer), BEST: 1e-9}
    made, predicted = {PEER: peer}, {PEER: "-"}
    for sharing in ("knapsack", *searched):
        budget, allocation = {"macs": CUT}, sharing
        if sharing in searched:
            budget, allocation = budget | {"speedup": 1.01}, most_efficient(model, searched[sharing], options.tries)
        try:
            plan = sp.plan(graph, scores, budget, cost=cost, align=cost.steps, allocation=allocation)
        except BudgetError as error:
            table.add_row(sharing, escape(str(error)))
            continue
        assert plan.latency is not None
        made[sharing] = sp.prune(model, plan)
        predicted[sharing] = f"{plan.latency['dense'] / plan.latency['slim']:.2f}×"
    with tempfile.TemporaryDirectory() as folder:
        written = enumerate({"dense": model, **made}.items())
        files = {row: sp.export_onnx(slim, x, Path(folder) / f"{number}.onnx") for number, (row, slim) in written}
        timed = sp.benchmark(files, seconds=options.seconds)
    for row, slim in made.items():
        cut, speedup, (low, high) = total_macs(model, x) / total_macs(slim, x), timed.speedup[row], timed.ci95[row]
        measured = (f"{speedup:.2f}× ({low:.2f}-{high:.2f})", f"{speedup / cut:.2f}", f"{share_kept(model, slim):.3f}")
        table.add_row(row, f"{cut:.2f}×", predicted[row], *measured)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--models", metavar="A,B", default=NETWORKS, help="timm names (ten)")
    parser.add_argument("--learn", type=float, default=60.0, help="seconds for learning what widths cost (60)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for timing the networks (20)")
    parser.add_argument("--tries", type=int, default=5000, help="moves of the search (5000)")
    options = parser.parse_args(arguments)
    if min(options.learn, options.seconds) <= 0 or options.tries < 1:
        fail(f"--learn {options.learn:g}, --seconds {options.seconds:g}, --tries {options.tries}: give numbers over 0")
    models = [name.strip() for name in options.models.split(",") if name.strip()]
    for name in models:
        check_known("model", name.partition(".")[0], architectures())
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 110)
    for name in models:
        console.print(limits(name, options))


if __name__ == "__main__":
    main()
