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

import warnings
from collections.abc import Sequence

import torch

from structprune.suites.beside_peer import NETWORKS
from structprune.suites.command_line import Parser, models, positive, stdout, whole
from structprune.suites.limits import limits, table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--models", metavar="A,B", type=models, default=NETWORKS, help="timm names (ten)")
    parser.add_argument("--learn", type=positive, default=60.0, help="seconds for learning what widths cost (60)")
    parser.add_argument("--seconds", type=positive, default=20.0, help="for timing the networks (20)")
    parser.add_argument("--tries", type=whole, default=5000, help="moves of the search (5000)")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in options.models:
        stdout(110).print(table(limits(name, options.learn, options.seconds, options.tries)))


if __name__ == "__main__":
    main()
