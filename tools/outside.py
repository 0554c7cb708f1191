"""Prunes and proves networks that timm does not make, each in a process of its own.

    python tools/outside.py --write               # all of them, and docs/outside.md from the results
    python tools/outside.py --only hf_bert,tv_swin_t --again

Each network (structprune/suites/outside: torchvision, transformers, diffusers, segmentation-models-pytorch, monai and
a few written after well-known shapes, at small random configurations) is traced on a random example, planned at half
of the MACs (or the smallest budget that can be met), pruned and gated (ONNX parity included); then saved and loaded
in a fresh process without the dense network, run at three times the batch, and trained for a step. Where all that was
cut is exact, the slim network is also held against the dense one with every removed slice set to zero, by code that
shares nothing with the gate. Needs the extra `outside`: pip install -c constraints.txt -e '.[outside]'.

Each result is written at once, so that an interrupted run resumes; results that are there stay (--again, --failed).
Exit codes: 0 done (also where networks fail), 2 bad input, 3 a slim network is silently wrong, 130 interrupted.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from structprune.suites.command_line import Parser, check_known, command, interrupt, names, note
from structprune.suites.outside import NETWORKS
from structprune.suites.outside.page import document
from structprune.suites.outside.records import counts, right, trouble
from structprune.suites.outside.running import check_installed, installed, perform
from structprune.suites.pool import Limits
from structprune.suites.results import Results

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--only", metavar="A,B", type=names, default=[], help="these networks")
    parser.add_argument("--again", action="store_true", help="make the results anew that are there")
    parser.add_argument("--failed", action="store_true", help="make those anew that did not pass")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (2)")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each process (1)")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for a network (900)")
    parser.add_argument("--memory", type=float, default=10.0, metavar="GiB", help="for a network (10)")
    parser.add_argument("--budget", type=float, default=0.5, help="share of the MACs that may stay (0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the example (0)")
    results, page = ROOT / "build" / "outside" / "results.json", ROOT / "docs" / "outside.md"
    parser.add_argument("--results", type=Path, default=results, metavar="FILE", help="(build/outside/results.json)")
    parser.add_argument("--write", type=Path, nargs="?", const=page, metavar="FILE", help="write docs/outside.md")
    options = parser.parse_args(arguments)
    chosen, versions = options.only or list(NETWORKS), installed()
    for name in chosen:
        check_known("network", name, NETWORKS)
    check_installed(chosen, versions)
    signal.signal(signal.SIGTERM, interrupt)
    limits = Limits(options.jobs, options.timeout, int(options.memory * 2**30), threads=options.threads)
    settings = {"seed": options.seed, "budget": options.budget, "again": options.again, "failed": options.failed}
    try:
        records = perform(chosen, Results(options.results), limits, versions=versions, **settings)
    except KeyboardInterrupt:
        note(f"interrupted; what is done is in {options.results}: the same command goes on from there")
        raise SystemExit(130) from None
    if options.write:
        options.write.write_text(document(records), encoding="utf-8")
        note(f"wrote {options.write}")
    print(command())
    print("\n".join([*(f"{r['model']}: {trouble(r)}" for r in records if not right(r)), counts(records)]))
    if any(record.get("silent") for record in records):
        raise SystemExit(3)


if __name__ == "__main__":
    main()
