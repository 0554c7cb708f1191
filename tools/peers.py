"""structprune and torch-pruning side by side: the same timm networks, random weights and budget of MACs.

    python tools/peers.py --models resnet18,mobilenetv2_100 --cut 0.5 --align 8 --seconds 10 --json peers.json

Both prune every layer by the same share (uniform) and rank units by the L1 norm of all that is coupled
(`group_l1`; `GroupMagnitudeImportance(p=1)` with its own normalisation); the classifier's outputs stay.
torch-pruning takes a pruning ratio and no budget, so the ratio that comes nearest to the budget is searched
for first. Preparation is the time from the dense network to the slim one: trace, score, plan and surgery.
torch-pruning's is at the ratio found already, the search is listed apart; structprune's holds its search. The
tools take turns, after a run of each that does not count.

MACs are fvcore's count on the finished networks. The gate is structprune's comparison with the masked dense
network; torch-pruning has none ("-"). Latencies come from one interleaved benchmark of the ONNX files. An
exception is printed in the row of the tool that raised it. Meant for convolutional networks: torch-pruning
would need fused attention to be off for others, which this script leaves on.

Exit codes: 0 done (also where a tool fails on a network), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from structprune.errors import StructPruneError
from structprune.suites.beside_peer import THEIRS, machine
from structprune.suites.command_line import (
    Parser,
    check_installed,
    command,
    fail,
    models,
    new_file,
    positive,
    share,
    stdout,
    whole,
)
from structprune.suites.peers.comparison import compare
from structprune.suites.peers.records import Settings
from structprune.suites.peers.report import machine_lines, remarks, table
from structprune.suites.results import record_each

NETWORKS = "resnet18,mobilenetv2_100,regnetx_002"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--models", metavar="A,B", type=models, default=NETWORKS, help=f"timm names ({NETWORKS})")
    parser.add_argument("--cut", type=share, default=0.5, help="share of the MACs to be cut (0.5)")
    parser.add_argument("--align", type=whole, default=1, help="widths are multiples of this (1; round_to of the peer)")
    parser.add_argument("--seconds", type=positive, default=10.0, help="for the latencies of one network (10)")
    parser.add_argument("--threads", type=whole, default=1, help="of torch and of onnxruntime, for all (1)")
    parser.add_argument("--repeats", type=whole, default=3, help="paired turns in which preparation is timed (3)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the image (0)")
    parser.add_argument("--json", metavar="FILE", type=new_file, help="write all results, anew after each network")
    options = parser.parse_args(arguments)
    check_installed(THEIRS)
    torch.set_num_threads(options.threads)  # beside other work, threads that wait for each other swamp small ops
    choices = {key: value for key, value in vars(options).items() if key != "json"}
    about = {"command": command(), "settings": choices, "machine": machine()}
    settings = Settings(**{key: value for key, value in choices.items() if key != "models"})
    try:
        comparisons = record_each(
            options.models,
            lambda name: compare(name, settings),
            options.json,
            lambda comparisons: {**about, "networks": [comparison.to_data() for comparison in comparisons]},
        )
    except StructPruneError as error:
        fail(" ".join(str(error).split()))
    console = stdout(130)
    console.print(table(comparisons, settings))
    for comparison in comparisons:
        for line in remarks(comparison):
            console.print(line, highlight=False, soft_wrap=True)
    for line in (*machine_lines(about["machine"]), about["command"]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
