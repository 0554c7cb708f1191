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

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from structprune.suites.beside_peer import NETWORKS, machine
from structprune.suites.command_line import Parser, command, models, positive, stdout, whole
from structprune.suites.results import record_each
from structprune.suites.speed.report import summary, table
from structprune.suites.speed.rows import Comparison, Settings, compare


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--models", metavar="A,B", type=models, default=NETWORKS, help="timm names (ten)")
    parser.add_argument("--seconds", type=positive, default=30.0, help="for the last timing of a network (30)")
    parser.add_argument("--learn", type=positive, default=60.0, help="for learning what its widths cost (60)")
    parser.add_argument("--tries", type=whole, default=3000, help="moves of the search for efficiency (3000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, anew after each network")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    settings = Settings(options.seconds, options.learn, options.tries)
    about = {"command": command(), "machine": machine()}

    def measure(name: str) -> Comparison:
        record = compare(name, settings)
        stdout(150).print(table(record))
        return record

    records = record_each(
        options.models,
        measure,
        options.json,
        lambda records: {**about, "summary": summary(records), "networks": [record.to_data() for record in records]},
    )
    print("\n".join(summary(records)))
    print(about["command"])


if __name__ == "__main__":
    main()
