"""Pruning beside and on top of int8: dense and slim, in float32 and int8, in onnxruntime.

    python tools/int8.py --json int8.json            # ten networks, about a quarter of an hour on two cores

Random weights, a batch of 1. The slim network has half of the MACs, shared by `knapsack`, with the channel counts that
onnxruntime is fast with in int8. int8 is onnxruntime's static quantiser (QDQ, a scale for each output channel), its
ranges from random inputs, which is enough for timing. All four files are timed in turns. The last column is the speed
gained by pruning where both are int8, divided by the MACs cut.

Exit codes: 0 done (also where a network fails), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from structprune.suites.beside_peer import NETWORKS, machine
from structprune.suites.command_line import Parser, command, models, positive, stdout, whole
from structprune.suites.int8 import measure, summary, table
from structprune.suites.results import data_of, record_each


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--models", metavar="A,B", type=models, default=NETWORKS, help="timm names (ten)")
    parser.add_argument("--seconds", type=positive, default=20.0, help="for the timing of a network (20)")
    parser.add_argument("--threads", type=whole, default=1, help="of onnxruntime (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, anew after each network")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    about = {"command": command(), "machine": machine()}
    records = record_each(
        options.models,
        lambda name: measure(name, options.seconds, options.threads),
        options.json,
        lambda records: {**about, "networks": [data_of(record) for record in records]},
    )
    stdout(140).print(table(records))
    print(summary(records))
    print(about["command"])


if __name__ == "__main__":
    main()
