"""How long a sweep that has run would take with other numbers of workers, seeds and models, from what its runs logged.

    python tools/sweep_scaling.py runs/training_mnist --workers 1 2 4 8 16 32

A simulation: workers take runs in turn, what several runs need is made once, and whoever needs it meanwhile waits. It
takes each worker to be as fast as those that were measured, which workers that share one machine are not quite.
Processes of one run (torchrun) share what trains, and nothing else.

Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from structprune.errors import StructPruneError
from structprune.suites.command_line import Parser, fail, positive, whole
from structprune.suites.sweep_scaling import model_rows, process_rows, read_costs, seed_rows, worker_rows

WORKERS = [1, 2, 4, 8, 16, 32]
START = 5.0  # seconds: importing PyTorch and reading the recipe


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="of a sweep that has finished")
    parser.add_argument(
        "--workers", nargs="+", type=whole, default=WORKERS, help="how many, and processes of a run (1 2 4 8 16 32)"
    )
    parser.add_argument("--start", type=positive, default=START, help="seconds until a run logs something (5)")
    options = parser.parse_args(arguments)
    try:
        runs = read_costs(options.folder, options.start)
    except StructPruneError as error:
        fail(" ".join(str(error).split()))
    print(f"| workers ({len(runs)} runs) | minutes | times as fast | time in use |\n|---:|---:|---:|---:|")
    for count, minutes, faster, used in worker_rows(runs, options.workers):
        print(f"| {count} | {minutes:.1f} | {faster:.2f} | {used:.0%} |")
    print("\n| processes of one run | minutes | times as fast |\n|---:|---:|---:|")
    for count, minutes, faster in process_rows(runs, options.workers):
        print(f"| {count} | {minutes:.1f} | {faster:.2f} |")
    models = model_rows(runs)
    for what, rows in [("seeds", seed_rows(runs)), *([("models", models)] if len(models) > 1 else [])]:
        print(f"\n| {what}, on one worker | minutes | if nothing were shared |\n|---:|---:|---:|")
        for count, minutes, unshared in rows:
            print(f"| {count} | {minutes:.1f} | {unshared:.1f} |")


if __name__ == "__main__":
    main()
