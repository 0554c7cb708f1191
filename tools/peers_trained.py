"""One recipe with its training, by structprune and by torch-pruning: mean ± standard deviation over seeds.

    python tools/peers_trained.py recipes/studies/peer/group_norm.yaml --shares 0.25 0.0625 --seeds 5

Each comparison is `structprune compare` without rounding: both cut the same trained network to as many MACs, and both
are fine-tuned alike. A second start goes on with what is missing.

Exit codes: 0 done (also where torch-pruning fails), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from structprune.errors import StructPruneError
from structprune.suites.beside_peer import THEIRS
from structprune.suites.command_line import Parser, check_installed, command, fail, note, share, whole
from structprune.suites.peers.trained import COLUMNS, comparisons, table_rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("recipe", type=Path, help="a recipe with a budget of MACs")
    parser.add_argument("--shares", nargs="+", type=share, default=[0.25, 0.0625], help="of MACs (0.25 0.0625)")
    parser.add_argument("--seeds", type=whole, default=5, help="how many, from 0 (5)")
    parser.add_argument("--out", type=Path, help="the folder of all comparisons (runs/RECIPE'S NAME-trained)")
    options = parser.parse_args(arguments)
    check_installed(THEIRS)
    torch.set_num_threads(1)
    out = options.out or Path("runs") / f"{options.recipe.stem}-trained"
    try:
        results = comparisons(options.recipe, options.shares, options.seeds, out)
    except StructPruneError as error:
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        note(f"interrupted; the same command goes on in {out}")
        raise SystemExit(130) from None
    for row in (COLUMNS, tuple("---" for _ in COLUMNS), *table_rows(results)):
        print("| " + " | ".join(row) + " |")
    note(command())


if __name__ == "__main__":
    main()
