"""How near to the MACs cut the speedup can come: widths sought for efficiency alone, by costs as learned, and timed.

    python tools/limits.py --models vit_tiny_patch16_224,convnext_atto
    python tools/limits.py --tries 20000

Efficiency is speedup ÷ MACs cut, at half of the MACs. What a network's widths cost is learned as tools/speed.py does it
(and found on disk where that has run with the same --learn). Then a local search looks for the widths of the greatest
predicted efficiency, whatever becomes of the importance: it starts from the plan by `knapsack`, moves up to three
groups at a time by up to four of their widths, at random (seeded), and takes what is better and has 0.96 to 1 of half
of the MACs. Both networks are then timed beside the dense one: costs flatter what was picked by them. *Kept* is the
geometric mean over groups of the share of L1 scores that stays.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from command_line import Parser, fail
from rich.console import Console
from rich.table import Table
from speed import CUT, NETWORKS
from zoo import check_known
from zoo_worker import build, example

import structprune as sp
from structprune.compare.comparison import planned_indices, share_kept
from structprune.cost import CostModel, learn_cost
from structprune.names import architectures
from structprune.plan.allocation import ALLOCATIONS, Load, Widths, allocation
from structprune.plan.budget import Choice

LEAST = 0.96  # of the MACs that may stay
MOST_GROUPS, MOST_STEPS = 3, 4
BEST = "most efficient"


def most_efficient(choices: list[Choice], scores: sp.Scores, load: Load, tries: int) -> Widths:
    """For the budgets `macs` and `speedup`: the widths that use most of the first for what they use of the second."""
    rng = np.random.default_rng(0)
    ladders = {c.group.name: [int(width) for width in c.widths] for c in choices if len(c.widths) > 1}
    names = list(ladders)

    def efficiency(at: Widths) -> float:
        macs, latency = load.shares(at)
        return float(macs / latency) if LEAST <= macs <= 1 else 0.0

    best = ALLOCATIONS["knapsack"](choices, scores, Load(lambda at: load.shares(at)[:1]))
    reached = efficiency(best)
    for _ in range(tries):
        moved = dict(best)
        for name in rng.choice(names, size=min(len(names), rng.integers(1, MOST_GROUPS + 1)), replace=False):
            ladder = ladders[name]
            place = ladder.index(moved[name]) + rng.integers(-MOST_STEPS, MOST_STEPS + 1)
            moved[name] = ladder[int(np.clip(place, 0, len(ladder) - 1))]
        if (now := efficiency(moved)) > reached:
            best, reached = moved, now
    return best


def row(
    graph: sp.DependencyGraph, scores: sp.Scores, cost: CostModel, sharing: str, dense: Path, seconds: float
) -> list[str]:
    budget = {"macs": CUT, **({"speedup": 1.01} if sharing == BEST else {})}
    plan = sp.plan(graph, scores, budget, cost=cost, align=cost.steps, allocation=sharing)
    assert plan.latency is not None
    cut, expected = plan.macs["dense"] / plan.macs["slim"], plan.latency["dense"] / plan.latency["slim"]
    slim = sp.export_onnx(sp.prune(graph.model, plan), graph.inputs, dense.with_name("slim.onnx"))
    timed = sp.benchmark({"dense": dense, "slim": slim}, seconds=seconds)
    speedup, (low, high) = timed.speedup["slim"], timed.ci95["slim"]
    kept = share_kept(graph, scores, planned_indices(plan.keep))
    measured = (f"{speedup:.2f}× ({low:.2f}-{high:.2f})", f"{speedup / cut:.2f}", f"{kept:.3f}")
    return [sharing, f"{cut:.2f}×", f"{expected:.2f}×", *measured]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", metavar="A,B", default=NETWORKS.replace(" ", ","), help="timm names (ten)")
    parser.add_argument("--learn", type=float, default=60.0, help="seconds for learning what widths cost (60)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for timing each network that was found (10)")
    parser.add_argument("--tries", type=int, default=5000, help="moves of the search (5000)")
    options = parser.parse_args(arguments)
    if min(options.learn, options.seconds) <= 0 or options.tries < 1:
        fail(f"--learn {options.learn:g}, --seconds {options.seconds:g}, --tries {options.tries}: give numbers over 0")
    allocation(BEST)(partial(most_efficient, tries=options.tries))
    models = [name.strip() for name in options.models.split(",") if name.strip()]
    for name in models:
        check_known("model", name.partition(".")[0], architectures())
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 110)
    for name in models:
        model = build(name, "cpu", seed=0)
        graph = sp.trace(model, example(model, "cpu", seed=0))
        scores = sp.score(graph, "l1")
        cost = learn_cost(graph, seconds=options.learn)
        table = Table(title=f"{name}: costs off by {100 * cost.error:.1f} %, in the median", title_justify="left")
        for column in ("", "MACs cut", "predicted", "measured (95 %)", "efficiency", "kept"):
            table.add_column(column, justify="right" if column else "left")
        with tempfile.TemporaryDirectory() as folder:
            dense = sp.export_onnx(model, graph.inputs, Path(folder) / "dense.onnx")
            for sharing in ("knapsack", BEST):
                table.add_row(*row(graph, scores, cost, sharing, dense, options.seconds))
        console.print(table)


if __name__ == "__main__":
    main()
