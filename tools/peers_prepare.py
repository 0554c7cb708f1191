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

import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from structprune.suites.beside_peer import THEIRS, machine
from structprune.suites.command_line import (
    Parser,
    check_installed,
    command,
    fail,
    interrupt,
    models,
    positive,
    stdout,
    whole,
)
from structprune.suites.preparation.records import Settings, summary
from structprune.suites.preparation.report import lines, table
from structprune.suites.preparation.running import prepare
from structprune.suites.results import Results, record_each

ZOO = Path(__file__).resolve().parents[1] / "build" / "zoo" / "results.json"


def smallest() -> list[str]:
    """The smallest model of each family, as the zoo has them."""
    names = [entry["model"] for entry in Results(ZOO).section("smallest").values() if entry["model"]]
    if not names:
        fail(f"{ZOO} does not name the smallest models: run tools/zoo.py first, or give --models")
    return models(",".join(names))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--models", metavar="A,B", type=models, help="timm names (the smallest model of each family)")
    parser.add_argument("--repeats", type=whole, default=3, help="turns that are timed (3)")
    parser.add_argument("--timeout", type=positive, default=100.0, help="seconds for a run of torch-pruning (100)")
    parser.add_argument("--attn-dim", action="store_true", help="set attn_dim too, which that example does not know")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, anew after each model")
    options = parser.parse_args(arguments)
    check_installed(THEIRS)
    names = options.models or smallest()
    signal.signal(signal.SIGTERM, interrupt)
    torch.set_num_threads(1)  # as the processes have, so that the file says so
    settings = Settings(options.repeats, options.timeout, options.attn_dim)
    about = {"command": command(), "machine": machine(), "asked": asdict(settings)}
    records = record_each(
        names,
        lambda name: prepare(name, settings),
        options.json,
        lambda records: {
            **about,
            "summary": summary(records).to_data(),
            "models": [vars(record) for record in records],
        },
    )
    stdout(160).print(table(records))
    print("\n".join(lines(summary(records))))
    print(about["command"])


if __name__ == "__main__":
    main()
