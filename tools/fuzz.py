"""Random networks and plans through structprune, and the same networks through torch-pruning beside it.

    python tools/fuzz.py --n 2000 --seed 0 --jobs 2 --out fuzz.json
    python tools/fuzz.py --spec '[["Shuffled", 8]] pool' --seed 17 --ratio 0.5

Network number i is made from seed S + i: one to five blocks of structprune/suites/networks/blocks, a head, random
weights; then random scores and a random budget of MACs (the nearest that can be reached), allocated uniformly and
globally in turn. An outcome is

    right     the slim network equals the masked dense one in float64, at two batch sizes, with its own and with
              random weights, and its MACs and parameters are the plan's and fvcore's (with --onnx: the whole gate)
    wrong     it runs and differs, or is counted wrongly
    raised    structprune raised what is no error of its own, or the slim network does not run, or time ran out
    refused   structprune raised one of its own errors
    unclear   (torch-pruning) it differs, and some block takes a statistic over channels, such as LayerNorm, which
              zeroed channels change and removed ones do not

Failures are made smaller block by block and printed as a command that repeats them. torch-pruning removes half of
each layer's channels by L1 magnitude; see structprune/suites/fuzz/peer.py for what it is held to.

Exit codes: 0 nothing wrong, 1 a network of structprune's was wrong or raised, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from structprune.suites.command_line import Parser, check_installed, command, new_file, note, positive, stdout, whole
from structprune.suites.fuzz.checks import check
from structprune.suites.fuzz.outcomes import BAD, THEIRS, TIMED_OUT, Settings, examine
from structprune.suites.fuzz.report import data_of, lines, show
from structprune.suites.fuzz.running import collect, prepare
from structprune.suites.random_networks import Case


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--n", type=whole, default=200, help="networks")
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    parser.add_argument("--spec", help="one network: a JSON list of [block, width] and a head, with --seed and --ratio")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the MACs that may stay, for --spec")
    parser.add_argument("--onnx", action="store_true", help="the whole gate: ONNX and reload too (slower)")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="torch-pruning beside it")
    parser.add_argument("--peer-n", type=int, default=200, help="networks for torch-pruning, the first ones")
    parser.add_argument("--jobs", type=whole, default=2, help="processes")
    parser.add_argument("--timeout", type=positive, default=60.0, help="seconds for one network")
    parser.add_argument(
        "--peer-timeout", type=positive, default=10.0, help="the same for torch-pruning, which can hang"
    )
    parser.add_argument("--shrink", type=int, default=20, help="kinds of failure that are made smaller")
    parser.add_argument("--barriers", type=int, default=10, help="barriers that are listed")
    parser.add_argument("--out", type=new_file, metavar="FILE", help="write everything as JSON as well")
    options = parser.parse_args(arguments)
    if not 0 < options.ratio <= 1 or options.seed < 0:
        parser.error("--ratio is a share between 0 and 1, --seed 0 or more")
    if options.peer:
        check_installed(THEIRS, ", or give --no-peer")
    if options.spec:
        try:
            options.case = Case.parse(options.spec, options.seed, options.ratio)
        except (ValueError, TypeError) as error:
            parser.error(f"--spec {options.spec}: {error}")
    return options


def examine_one(case: Case, settings: Settings, with_peer: bool) -> int:
    prepare(in_child=False)
    record = examine(case, settings, with_peer)
    print("\n".join(lines(record)))
    if record.ours.outcome == "raised" and record.ours.kind != TIMED_OUT:
        check(case, settings.onnx)  # once more, for Python to print the traceback
    return int(record.ours.outcome in BAD)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    settings = Settings(options.onnx, options.timeout, options.peer_timeout)
    if options.spec:
        return examine_one(options.case, settings, options.peer)
    cases = [Case.random(options.seed + number) for number in range(options.n)]
    records, interrupted = collect(cases, settings, options.peer_n * options.peer, options.jobs)
    prepare(in_child=False)
    listed = show(records, settings, stdout(120), 0 if interrupted else options.shrink, options.barriers)
    if interrupted:
        note(f"interrupted after {len(records)} of {len(cases)} networks")
    if options.out:
        data = {"command": command(), **data_of(records, listed, options.peer)}
        options.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 130 if interrupted else int(any(record.ours.outcome in BAD for record in records))


if __name__ == "__main__":
    sys.exit(main())
