"""Prunes and proves the smallest model of each of timm's families, each in a process of its own.

    python tools/zoo.py --jobs 2 --write          # the sweep, and docs/zoo.md from its results
    python tools/zoo.py --families resnet,levit   # a part of it; --models takes any of timm's names
    python tools/zoo.py --all --plan-only         # plans every architecture on the meta device, without weights
    python tools/zoo.py --barriers --per-family 10 --timeout 60   # what keeps channels, in models drawn by --seed

The sweep builds each model with random weights, traces it on a random image of its default size, plans half of
the MACs (or the smallest budget that can be met), prunes, and runs the acceptance gate, which holds the ONNX
file's parity. Where the slim module can't reach the budget, the graph form is planned too and the better one is
proven. A process that takes too long or too much memory is ended and noted. --barriers only traces, in both forms,
and tells for each reason how many models and channels it keeps.

Each result is written at once, so that an interrupted sweep resumes; results that are there stay (--again,
--failed). Resident memory is watched through /proc, that is on Linux only.

Exit codes: 0 done (also where models fail), 2 bad input, 3 a slim network silently differs from the masked one,
130 interrupted.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from structprune.suites.command_line import Parser, command, fail, interrupt, names, note, positive, share, whole
from structprune.suites.pool import Limits
from structprune.suites.results import Results
from structprune.suites.zoo.page import document_of
from structprune.suites.zoo.records import silent_mismatch
from structprune.suites.zoo.summary import barrier_summary, plan_summary, summary
from structprune.suites.zoo.sweep import Settings, Zoo

ROOT = Path(__file__).resolve().parents[1]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--models", metavar="A,B", help="these models, whatever their size", type=names, default=[])
    parser.add_argument("--families", metavar="X,Y", help="only these of timm.list_modules()", type=names, default=[])
    parser.add_argument("--all", action="store_true", help="every model and not only the smallest; needs --plan-only")
    parser.add_argument("--plan-only", action="store_true", help="on the meta device: no weights, no pruning, no gate")
    parser.add_argument("--barriers", action="store_true", help="on the meta device, traced in both forms and no more")
    parser.add_argument("--per-family", type=whole, default=0, metavar="N", help="of each family, N drawn by --seed")
    parser.add_argument("--again", action="store_true", help="make the results anew that are there")
    parser.add_argument("--failed", action="store_true", help="make those anew that did not pass")
    parser.add_argument("--jobs", type=whole, default=2, help="processes at once (2)")
    parser.add_argument("--threads", type=whole, default=1, help="of torch, in each process (1)")
    parser.add_argument("--timeout", type=positive, default=1800.0, help="seconds for a model (1800)")
    parser.add_argument("--memory", type=positive, default=14.0, metavar="GiB", help="resident memory for a model (14)")
    parser.add_argument("--budget", type=share, default=0.5, help="share of the MACs that may stay (0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the image (0)")
    results, page = ROOT / "build" / "zoo" / "results.json", ROOT / "docs" / "zoo.md"
    parser.add_argument("--results", type=Path, default=results, metavar="FILE", help="(build/zoo/results.json)")
    parser.add_argument("--write", type=Path, nargs="?", const=page, metavar="FILE", help="write the page docs/zoo.md")
    options = parser.parse_args(arguments)
    if (options.all or options.per_family) and not (options.plan_only or options.barriers):
        fail("--all and --per-family are for --plan-only or --barriers: a sweep would take days (--models sweeps any)")
    if options.plan_only and options.barriers:
        fail("--barriers only traces: leave --plan-only out")
    if options.write and (options.plan_only or options.barriers):
        fail("--write needs the results of a sweep: leave --plan-only and --barriers out")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    results = Results(options.results)
    limits = Limits(options.jobs, options.timeout, int(options.memory * 2**30), threads=options.threads)
    op = "barriers" if options.barriers else "plan" if options.plan_only else "sweep"
    try:
        zoo = Zoo(Settings(op, options.seed, options.budget, limits, options.again, options.failed))
        selected = zoo.select(options.models, options.families, results, options.all, options.per_family)
        records = zoo.perform(selected, results)
        if options.write:
            options.write.write_text(document_of(zoo, results, "python tools/zoo.py --write"), encoding="utf-8")
            note(f"wrote {options.write}")
    except KeyboardInterrupt:
        note(f"interrupted; what is done is in {options.results}: the same command goes on from there")
        raise SystemExit(130) from None
    print(command())
    if options.barriers:
        lines = barrier_summary(records)
    else:
        lines = plan_summary(records, options.budget) if options.plan_only else summary(records)
    print("\n".join(lines))
    if any(map(silent_mismatch, records)):
        raise SystemExit(3)


if __name__ == "__main__":
    main()
