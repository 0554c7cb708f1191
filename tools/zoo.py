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
import datetime
import difflib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

from command_line import Parser, fail
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from zoo_pool import Limits, Record, Worker, run
from zoo_report import barrier_summary, document, merged, plan_summary, silent_mismatch, summary, trouble

ROOT = Path(__file__).resolve().parents[1]
GOOD = ("passed", "planned", "traced")
LIVES = 25  # tasks of a process where a process for each would mostly import
console = Console(stderr=True)


class Store:
    """The results file: `smallest` (of each family), `results` of the sweep, `plans` and `barriers`, each by the
    model's name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.data: Record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError) as error:
            fail(f"{path} can't be read ({error}): mend or move it")

    def section(self, name: str) -> Record:
        return self.data.setdefault(name, {})

    def put(self, section: str, key: str, value: Any) -> None:
        """Writes the file anew, a line for each entry, beside the old one and in its place."""
        self.section(section)[key] = value
        sections = []
        for name, entries in self.data.items():
            lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entries[key])}" for key in sorted(entries))
            sections.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(self.path.name + ".part")
        aside.write_text("{\n" + ",\n".join(sections) + "\n}\n", encoding="utf-8")
        os.replace(aside, self.path)


# --- which models ------------------------------------------------------------------------------------------


class Zoo:
    """timm's families and their models, as a worker tells them, with the versions at work."""

    def __init__(self, options: argparse.Namespace) -> None:
        with closing(run([{"op": "hello"}], limits(options))) as outcome:
            _, told = next(outcome)
        if told["status"] != "done":
            fail(f"a worker can't list timm's models: {told.get('message')}: {' / '.join(told.get('frames', []))}")
        self.families: dict[str, list[str]] = told["families"]
        self.versions: dict[str, str] = {**told["versions"], "structprune": _revision(told["versions"]["structprune"])}
        self.family_of = {name: family for family, models in self.families.items() for name in models}

    def select(self, options: argparse.Namespace, store: Store) -> list[tuple[str, str]]:
        """(family, model) of all that the options ask for."""
        for name in options.models:
            check_known("model", name, self.family_of)
        for name in options.families:
            check_known("family", name, self.families)
        wanted = [(self.family_of[name], name) for name in options.models]
        families = options.families or ([] if options.models else list(self.families))
        if options.all:
            wanted += [(family, name) for family in families for name in self.families[family]]
        elif options.per_family:
            for family in families:
                models, draw = self.families[family], random.Random(f"{family} {options.seed}")
                wanted += [(family, name) for name in draw.sample(models, min(options.per_family, len(models)))]
        else:
            self.find_smallest(families, options, store)
            chosen = store.section("smallest")
            wanted += [(family, chosen[family]["model"]) for family in families if chosen[family]["model"]]
        return list(dict.fromkeys(wanted))

    def find_smallest(self, families: Iterable[str], options: argparse.Namespace, store: Store) -> None:
        """Notes each family's model of fewest parameters, once for a version of timm."""
        timm, chosen = self.versions["timm"], store.section("smallest")
        missing = [family for family in families if chosen.get(family, {}).get("timm") != timm]
        tasks = [
            {"op": "sizes", "model": family, "models": self.families[family], "seed": options.seed}
            for family in missing
        ]
        for task, record in follow(tasks, limits(options, lives=LIVES), "smallest models"):
            built = {name: size for name, size in record.get("sizes", {}).items() if size is not None}
            model = min(built, key=lambda name: (built[name], name)) if built else None
            why = "" if built else "timm can build no model of it" if task["models"] else "timm has no model of it"
            entry = {"model": model, "params": built.get(model), "why": why, "timm": timm}
            store.put("smallest", task["model"], entry)


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        fail(f"unknown {kind} {name!r}" + (f": did you mean {' or '.join(near)}?" if near else " in timm"))


# --- running -----------------------------------------------------------------------------------------------


def limits(options: argparse.Namespace, lives: int = 1) -> Limits:
    return Limits(options.jobs, options.timeout, int(options.memory * 2**30), lives, options.threads)


def follow(tasks: Sequence[Record], bounds: Limits, title: str) -> Iterable[tuple[Record, Record]]:
    """`run` with a bar (on a terminal) that shows what each process is at."""
    if not tasks:
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Progress(*columns, TextColumn("{task.fields[busy]}"), console=console, transient=True)
    with shown as progress:
        bar = progress.add_task(title, total=len(tasks), busy="")

        def watch(workers: list[Worker]) -> None:
            busy = (
                f"{worker.task['model']} {worker.stage} {worker.seconds:.0f} s"
                for worker in workers
                if worker.task and "model" in worker.task
            )
            progress.update(bar, busy=escape(", ".join(busy)))

        with closing(run(tasks, bounds, watch)) as outcomes:
            for outcome in outcomes:
                progress.advance(bar)
                yield outcome


def perform(selected: Sequence[tuple[str, str]], zoo: Zoo, options: argparse.Namespace, store: Store) -> list[Record]:
    """Runs what has no result yet; returns the records of all that were selected."""
    section, op = ("plans", "plan") if options.plan_only else ("results", "sweep")
    if options.barriers:
        section = op = "barriers"
    results = store.section(section)
    asked = {"seed": options.seed, "budget": options.budget}

    def is_there(model: str) -> bool:
        record = results.get(model)
        if options.again or record is None or record["asked"] != asked:
            return False
        return record["status"] in GOOD or not options.failed

    waiting = [(family, model) for family, model in selected if not is_there(model)]
    if len(waiting) < len(selected):
        note(f"{len(selected) - len(waiting)} results are in {options.results} already (--again makes them anew)")
    tasks = [{"op": op, "family": family, "model": model, **asked} for family, model in waiting]
    bounds = limits(options, lives=LIVES if options.plan_only or options.barriers else 1)
    for task, record in follow(tasks, bounds, op):
        today = datetime.date.today().isoformat()
        record = {"family": task["family"], "model": task["model"], **record, "asked": asked}
        record["made"] = {"date": today, "versions": zoo.versions}
        if options.plan_only and "barriers" in record:
            record["barriers"] = merged(record["barriers"])
        for form in record.get("traces", {}).values():
            form["barriers"] = merged(form["barriers"])
        store.put(section, task["model"], record)
        note(progress_line(record))
    return [results[model] for _, model in selected]


def progress_line(record: Record) -> str:
    good = record["status"] in GOOD
    if record["status"] == "traced":
        told = ", ".join(f"{form} {trace['prunable']:.0%}" for form, trace in record["traces"].items())
    else:
        told = f"{record['status']} {record['cut']:.2f}× {record['form']}".rstrip() if good else trouble(record)
    peak = f"{record['peak_memory'] / 2**30:.1f} GiB"
    return f"{record['family']}: {record['model']} {told}, {record['total_seconds']:.0f} s, {peak}"


def note(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def write_page(path: Path, zoo: Zoo, options: argparse.Namespace, store: Store) -> None:
    """The table of the chosen models that have a result."""
    chosen, results = store.section("smallest"), store.section("results")
    empty = {family: chosen[family]["why"] for family in zoo.families if chosen.get(family, {}).get("why")}
    models = [chosen[family]["model"] for family in zoo.families if family in chosen]
    about = {
        "command": "python tools/zoo.py --write",
        "budget": options.budget,
        "seed": options.seed,
        "families": len(zoo.families),
    }
    path.write_text(document([results[m] for m in models if m in results], empty, about), encoding="utf-8")
    note(f"wrote {path}")


def _revision(version: str) -> str:
    """The version with the commit that is checked out, marked where files were changed since."""
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return f"{version} ({subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()})"
    except (OSError, subprocess.CalledProcessError):
        return version


# --- command line ------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    head, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(description=head, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter)
    names: Record = {"type": lambda text: [name.strip() for name in text.split(",") if name.strip()], "default": []}
    parser.add_argument("--models", metavar="A,B", help="these models, whatever their size", **names)
    parser.add_argument("--families", metavar="X,Y", help="only these of timm.list_modules()", **names)
    parser.add_argument("--all", action="store_true", help="every model and not only the smallest; needs --plan-only")
    parser.add_argument("--plan-only", action="store_true", help="on the meta device: no weights, no pruning, no gate")
    parser.add_argument("--barriers", action="store_true", help="on the meta device, traced in both forms and no more")
    parser.add_argument(
        "--per-family", type=int, default=0, metavar="N", help="of each family, N models drawn by --seed"
    )
    parser.add_argument("--again", action="store_true", help="make the results anew that are there")
    parser.add_argument("--failed", action="store_true", help="make those anew that did not pass")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (2)")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each process (1)")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for a model (1800)")
    parser.add_argument("--memory", type=float, default=14.0, metavar="GiB", help="resident memory for a model (14)")
    parser.add_argument("--budget", type=float, default=0.5, help="share of the MACs that may stay (0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the image (0)")
    results, page = ROOT / "build" / "zoo" / "results.json", ROOT / "docs" / "zoo.md"
    parser.add_argument("--results", type=Path, default=results, metavar="FILE", help="(build/zoo/results.json)")
    parser.add_argument("--write", type=Path, nargs="?", const=page, metavar="FILE", help="write the page docs/zoo.md")
    options = parser.parse_args(arguments)
    if (options.all or options.per_family) and not (options.plan_only or options.barriers):
        fail("--all and --per-family are for --plan-only or --barriers: a sweep would take days (--models sweeps any)")
    if options.plan_only and options.barriers:
        fail("--barriers only traces: leave --plan-only out")
    if options.per_family < 0:
        fail(f"--per-family {options.per_family}: give a number over 0")
    if options.write and (options.plan_only or options.barriers):
        fail("--write needs the results of a sweep: leave --plan-only and --barriers out")
    if not 0 < options.budget < 1:
        fail(f"--budget {options.budget:g}: give a share between 0 and 1, for example 0.5")
    for name in ("jobs", "threads", "timeout", "memory"):
        if not getattr(options, name) > 0:
            fail(f"--{name} {getattr(options, name):g}: give a number over 0")
    return options


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    store = Store(options.results)
    try:
        zoo = Zoo(options)
        records = perform(zoo.select(options, store), zoo, options, store)
        if options.write:
            write_page(options.write, zoo, options, store)
    except KeyboardInterrupt:
        note(f"interrupted; what is done is in {options.results}: the same command goes on from there")
        raise SystemExit(130) from None
    print(shlex.join([Path(sys.executable).name, *sys.argv]))
    if options.barriers:
        lines = barrier_summary(records)
    else:
        lines = plan_summary(records, options.budget) if options.plan_only else summary(records)
    print("\n".join(lines))
    if any(map(silent_mismatch, records)):
        raise SystemExit(3)


if __name__ == "__main__":
    main()
