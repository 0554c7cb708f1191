"""Random networks and plans through structprune, and the same networks through torch-pruning beside it.

    python tools/fuzz.py --n 2000 --seed 0 --jobs 2 --out fuzz.json
    python tools/fuzz.py --spec '[["Shuffled", 8]] pool' --seed 17 --ratio 0.5

Network number i is made from seed S + i: one to five blocks of tests/random_blocks, a head, random weights; then
random scores and a random budget of MACs (the nearest that can be reached), allocated uniformly and globally in
turn. An outcome is

    right     the slim network equals the masked dense one in float64, at two batch sizes, with its own and with
              random weights, and its MACs and parameters are the plan's and fvcore's (with --onnx: the whole gate)
    wrong     it runs and differs, or is counted wrongly
    raised    structprune raised what is no error of its own, or the slim network does not run, or time ran out
    refused   structprune raised one of its own errors
    unclear   (torch-pruning) it differs, and some block takes a statistic over channels, such as LayerNorm, which
              zeroed channels change and removed ones do not

Failures are made smaller block by block and printed as a command that repeats them. torch-pruning removes half of
each layer's channels by L1 magnitude; see tools/fuzz_peer.py for what it is held to.

Exit codes: 0 nothing wrong, 1 a network of structprune's was wrong or raised, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shlex
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the networks live in tests/

import torch  # noqa: E402
from fuzz_one import OURS, THEIRS, TIMED_OUT, Outcome, Record, Settings, examine, shrink  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.markup import escape  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

from tests.random_checks import Figures, check  # noqa: E402
from tests.random_networks import Case  # noqa: E402

OUTCOMES = ("right", "wrong", "raised", "refused", "unclear")
BAD, DIED = ("wrong", "raised"), "the process died"
# --- many networks -----------------------------------------------------------------------------------------


def prepare(in_child: bool = True) -> None:
    if in_child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the children
    torch.set_num_threads(1)  # the networks are tiny
    warnings.simplefilter("ignore")
    # torch reports on failures that are raised, caught and counted here: on stderr, and whole graphs on stdout
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    torch._C._jit_onnx_log = lambda *_: None  # type: ignore[attr-defined]


def run_all(cases: Sequence[Case], settings: Settings, peers: int, jobs: int) -> Iterator[Record]:
    """Records as they come; a case whose process dies is tried again alone, and is one that raised if it dies again."""
    asked = {case: number < peers for number, case in enumerate(cases)}
    if jobs == 1:
        prepare(in_child=False)
        yield from (examine(case, settings, peer) for case, peer in asked.items())
        return
    waiting = list(asked)
    while waiting:
        done: set[Case] = set()
        with _pool(jobs) as pool:
            futures: dict[Future[Record], Case] = {pool.submit(examine, c, settings, asked[c]): c for c in waiting}
            try:
                for future in as_completed(futures):
                    yield future.result()
                    done.add(futures[future])
            except BrokenProcessPool:
                pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        waiting = [case for case in waiting if case not in done]
        for case in waiting[: 2 * jobs + 1]:  # those that may have been running
            yield _alone(case, settings, asked[case])
        waiting = waiting[2 * jobs + 1 :]


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=prepare)


def _alone(case: Case, settings: Settings, peer: bool) -> Record:
    with _pool(1) as pool:
        try:
            return pool.submit(examine, case, settings, peer).result()
        except BrokenProcessPool:
            return Record(case, Outcome("raised", DIED), None)


# --- printing ----------------------------------------------------------------------------------------------


def columns(records: Sequence[Record]) -> dict[str, list[Outcome]]:
    """The outcomes of each column of the table; structprune also on the networks that torch-pruning got."""
    both = [record for record in records if record.theirs is not None]
    found = {OURS: [record.ours for record in records]}
    if both and len(both) < len(records):
        found[f"{OURS} on {len(both):,}"] = [record.ours for record in both]
    if both:
        found[THEIRS] = [record.theirs for record in both if record.theirs is not None]
    return found


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    counts = Counter(outcome.outcome for outcome in outcomes)
    cuts = [outcome.macs_cut for outcome in outcomes if outcome.macs_cut is not None]
    figures = [outcome.figures for outcome in outcomes if isinstance(outcome.figures, Figures)]
    made: dict[str, Any] = {"networks": len(outcomes), **{name: counts[name] for name in OUTCOMES}}
    made["macs_cut"] = fmean(cuts) if cuts else None
    for name in ("groups", "weights"):
        total = sum(getattr(f, name) for f in figures)
        made[f"{name}_cut"] = sum(getattr(f, f"{name}_cut") for f in figures) / total if total else None
    return made


def table(records: Sequence[Record]) -> Table:
    made = Table(title="Random networks", title_justify="left")
    made.add_column("")
    summaries = []
    for name, outcomes in columns(records).items():
        made.add_column(name, justify="right")
        summaries.append(summary(outcomes))
    labels = {"networks": "networks", "right": "right", "wrong": "silently wrong", "raised": "raised"}
    labels |= {"refused": "refused", "unclear": "unclear (statistic)"}
    for key, label in labels.items():
        made.add_row(label, *(_count(s, key) for s in summaries), end_section=key in ("networks", "unclear"))
    labels = {"macs_cut": "MACs cut (mean, if right)", "groups_cut": "groups cut", "weights_cut": "weight tensors cut"}
    for key, label in labels.items():
        made.add_row(label, *("-" if s[key] is None else f"{100 * s[key]:.1f} %" for s in summaries))
    return made


def _count(found: dict[str, Any], key: str) -> str:
    share = f" ({100 * found[key] / found['networks']:.1f} %)" if key != "networks" and found["networks"] else ""
    text = f"{found[key]:,}{share}"
    return f"[red]{text}[/red]" if key in BAD and found[key] else text


def failures(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Failures by tool, outcome and kind, most frequent first, each with the smallest network that was seen."""
    found: dict[tuple[str, str, str], list[tuple[Case, Outcome]]] = {}
    for record in records:
        for tool, outcome in ((OURS, record.ours), (THEIRS, record.theirs)):
            if outcome is not None and outcome.outcome in (*BAD, "refused"):
                found.setdefault((tool, outcome.outcome, outcome.kind), []).append((record.case, outcome))
    result = []
    for (tool, outcome, kind), seen in sorted(found.items(), key=lambda item: (item[0][0], -len(item[1]))):
        case, example = min(seen, key=lambda pair: (len(pair[0].blocks), pair[0].seed))
        same = {"tool": tool, "outcome": outcome, "kind": kind, "count": len(seen)}
        result.append({**same, "detail": example.detail, "case": case})
    return result


def barriers(records: Sequence[Record]) -> Counter[str]:
    """In how many of structprune's networks each op was a barrier, with its reason."""
    found: Counter[str] = Counter()
    for record in records:
        if isinstance(record.ours.figures, Figures):
            reasons = {
                f"{op}: {re.sub(r'[0-9, ()]*[0-9][0-9, ()]*', ' N ', r)}" for op, r in record.ours.figures.barriers
            }
            found.update(reasons)
    return found


def command_of(case: Case, onnx: bool = False) -> str:
    text = f"python tools/fuzz.py --spec {shlex.quote(case.spec)} --seed {case.seed} --ratio {case.ratio:g}"
    return text + " --onnx" * onnx


def show(records: Sequence[Record], options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Prints everything; returns the failures, structprune's with their smallest networks."""
    console.print(table(records))
    plain = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    settings = settings_of(options)
    listed = failures(records)
    for number, failure in enumerate(listed):
        case = failure.pop("case")
        if number < options.shrink and failure["kind"] not in (TIMED_OUT, DIED):
            case = shrink(case, *settings.of(failure["tool"]))
        failure["command"] = command_of(case, settings.onnx)
        sort = f"{failure['tool']}, {failure['outcome']}, {failure['count']}×"
        console.print(f"[bold]{sort}[/bold] {escape(failure['kind'])}", highlight=False, soft_wrap=True)
        plain(f"    {failure['detail'][:200]}\n    {failure['command']}")
    common = barriers(records).most_common(options.barriers)
    if common:
        console.print("[bold]structprune's barriers, by networks[/bold]")
    for reason, count in common:
        plain(f"    {count:5,}  {reason}")
    return listed


def show_one(case: Case, options: argparse.Namespace) -> int:
    prepare(in_child=False)
    record = examine(case, settings_of(options), options.peer)
    plain = partial(Console().print, highlight=False, markup=False, soft_wrap=True)
    plain(f"{case.spec}, seed {case.seed}, ratio {case.ratio:g}\n{case.build()[0]}")
    for tool, outcome in ((OURS, record.ours), (THEIRS, record.theirs)):
        if outcome is not None:
            plain(f"{tool}: {outcome.outcome} {outcome.kind} {outcome.detail} {outcome.figures or ''}".rstrip())
    if record.ours.outcome == "raised" and record.ours.kind != TIMED_OUT:
        check(case, options.onnx)  # once more, for Python to print the traceback
    return int(record.ours.outcome in BAD)


# --- command line ------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary_line, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary_line, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=200, help="networks")
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    parser.add_argument("--spec", help="one network: a JSON list of [block, width] and a head, with --seed and --ratio")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the MACs that may stay, for --spec")
    parser.add_argument("--onnx", action="store_true", help="the whole gate: ONNX and reload too (slower)")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="torch-pruning beside it")
    parser.add_argument("--peer-n", type=int, default=200, help="networks for torch-pruning, the first ones")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one network")
    parser.add_argument("--peer-timeout", type=float, default=10.0, help="the same for torch-pruning, which can hang")
    parser.add_argument("--shrink", type=int, default=20, help="kinds of failure that are made smaller")
    parser.add_argument("--barriers", type=int, default=10, help="barriers that are listed")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything as JSON as well")
    options = parser.parse_args(arguments)
    for name in ("n", "jobs", "timeout", "peer_timeout"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name} {getattr(options, name)}: give a number over 0")
    if not 0 < options.ratio <= 1 or options.seed < 0:
        parser.error("--ratio is a share between 0 and 1, --seed 0 or more")
    if options.out and not options.out.absolute().parent.is_dir():
        parser.error(f"--out {options.out}: the folder {options.out.parent} does not exist")
    if options.peer:
        try:
            version(THEIRS)
        except PackageNotFoundError:
            parser.error(f"{THEIRS} is not installed: pip install {THEIRS}, or give --no-peer")
    if options.spec:
        try:
            options.case = Case.parse(options.spec, options.seed, options.ratio)
        except (ValueError, TypeError) as error:
            parser.error(f"--spec {options.spec}: {error}")
    return options


def settings_of(options: argparse.Namespace) -> Settings:
    return Settings(options.onnx, options.timeout, options.peer_timeout)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.spec:
        return show_one(options.case, options)
    cases = [Case.random(options.seed + number) for number in range(options.n)]
    records: list[Record] = []
    interrupted = False
    running = run_all(cases, settings_of(options), options.peer_n * options.peer, options.jobs)
    try:
        for record in track(running, "networks", total=len(cases), console=Console(stderr=True), transient=True):
            records.append(record)
    except KeyboardInterrupt:
        interrupted, options.shrink = True, 0
        running.close()
    records.sort(key=lambda record: record.case.seed)
    prepare(in_child=False)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    listed = show(records, options, console)
    if interrupted:
        print(f"interrupted after {len(records)} of {len(cases)} networks", file=sys.stderr)
    if options.out:
        write(records, listed, options)
    if interrupted:
        return 130
    return int(any(record.ours.outcome in BAD for record in records))


def write(records: Sequence[Record], listed: list[dict[str, Any]], options: argparse.Namespace) -> None:
    def outcome(found: Outcome | None) -> dict[str, Any] | None:
        return found and {**asdict(found), "macs_cut": found.macs_cut}

    data = {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "versions": {"torch": torch.__version__, THEIRS: version(THEIRS) if options.peer else None},
        "summary": {name: summary(outcomes) for name, outcomes in columns(records).items()},
        "failures": listed,
        "barriers": dict(barriers(records).most_common()),
        "networks": [
            {
                "spec": r.case.spec,
                "seed": r.case.seed,
                "ratio": r.case.ratio,
                OURS: outcome(r.ours),
                THEIRS: outcome(r.theirs),
            }
            for r in records
        ],
    }
    options.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
