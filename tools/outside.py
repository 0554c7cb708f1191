"""Prunes and proves networks that timm does not make, each in a process of its own.

    python tools/outside.py --write               # all of them, and docs/outside.md from the results
    python tools/outside.py --only hf_bert,tv_swin_t --again

Each network (outside_networks.py: torchvision, transformers, diffusers, segmentation-models-pytorch, monai and a few
written after well-known shapes, at small random configurations) is traced on a random example, planned at half of
the MACs (or the smallest budget that can be met), pruned and gated (ONNX parity included); then saved and loaded in
a fresh process without the dense network, run at three times the batch, and trained for a step. Where all that was
cut is exact, the slim network is also held against the dense one with every removed slice set to zero, by code that
shares nothing with the gate. Needs the extra `outside`: pip install -c constraints.txt -e '.[outside]'.

Each result is written at once, so that an interrupted run resumes; results that are there stay (--again, --failed).
Exit codes: 0 done (also where networks fail), 2 bad input, 3 a slim network is silently wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from outside_networks import NETWORKS, PACKAGES

from structprune.suites.command_line import Parser, fail, follow, interrupt, note
from structprune.suites.markdown import escape
from structprune.suites.pool import Limits, Record
from structprune.suites.results import Results, origin, with_commit
from structprune.suites.zoo.page import barrier_line, shares
from structprune.suites.zoo.records import ENOUGH, merged

ROOT = Path(__file__).resolve().parents[1]
WORKER = "tools.outside_worker"
PACKAGES_OUTSIDE = ("transformers", "diffusers", "segmentation-models-pytorch", "monai")
STEPS = (("reloaded", "load"), ("zeroed", "zeroed dense"), ("other_batch", "batch × 3"), ("training_step", "training"))
COLUMNS = ("network", "package", "groups", "prunable, module / graph", "MACs cut", "form", "gate", "ONNX",
           *(title for _, title in STEPS))  # fmt: skip


def right(record: Record) -> bool:
    """Whether every step held, at a cut that is worth it."""
    return record["status"] == "passed" and record.get("cut", 0) >= ENOUGH


def trouble(record: Record) -> str:
    """Why a network is not among the right ones, in one line."""
    if record["status"] == "passed":
        entries = sorted(merged(record.get("barriers", [])), key=lambda e: -e["channels"])
        return f"cut {record['cut']:.2f}×" + (f"; most by {barrier_line(entries[0])}" if entries else "")
    if record["status"] == "failed":
        return "; ".join(f"{step}: {told}" for step, told in record["faults"].items())
    return ": ".join(str(record[key]) for key in ("status", "error", "message") if record.get(key))


def counts(records: Sequence[Record]) -> str:
    status = Counter(record["status"] for record in records)
    forms = Counter(record["form"] for record in records if right(record))
    silent = sum(bool(record.get("silent")) for record in records)
    return (
        f"{len(records)} networks: {sum(map(right, records))} right at {ENOUGH}× fewer MACs or more "
        f"({forms['module']} in module form, {forms['graph']} in graph form), "
        f"{status['passed'] - sum(map(right, records))} right below that, {status['failed']} with a fault "
        f"({silent} silently wrong), {status['refused']} refused, "
        f"{len(records) - status['passed'] - status['failed'] - status['refused']} broke"
    )


def row(record: Record) -> tuple[str, ...]:
    known = record.get("traced")

    def step(name: str) -> str:
        told = record.get(name, "-")
        return told if told in ("right", "-") else "not compared" if told.startswith("not compared") else "FAILED"

    return (
        record["model"],
        record.get("package", "-"),
        str(record["groups"]) if known else "-",
        shares(record) if known else "-",
        f"{record['cut']:.2f}×" if record.get("cut") else "-",
        record.get("form", "-"),
        ("passed" if record["gate_passed"] else "FAILED") if "gate_passed" in record else record["status"],
        record.get("onnx", "-") if record.get("onnx") == "passed" else "not compared" if record.get("onnx") else "-",
        *(step(name) for name, _ in STEPS),
    )


def document(records: Sequence[Record]) -> str:
    """docs/outside.md."""
    lines = [
        "# Networks that timm does not make",
        "",
        (__doc__ or "").partition("\n\n    ")[0] + " Written by",
        "",
        "```sh",
        "python tools/outside.py --write",
        "```",
        "",
        (__doc__ or "").split("\n\n")[2].replace("\n", " "),
        "",
        origin(records),
        "",
        f"**{counts(records)}.**",
        "",
        "*Prunable* is what goes of the MACs with one unit left in each group, in the module form and in the graph "
        "form. *Not compared* where a step does not apply: the slim network can't be held against zeros where a cut "
        "changes a statistic (LayerNorm), and not every dense network takes another batch or trains on one sample.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(map(escape, row(record))) + " |" for record in records),
        "",
    ]
    rest = [record for record in records if not right(record)]
    if rest:
        lines += ["## The rest, each with its reason", ""]
        lines += [f"- **{record['model']}**: {escape(trouble(record))}" for record in rest]
    return "\n".join(lines).rstrip() + "\n"


def perform(names: Sequence[str], options: argparse.Namespace, store: Results) -> list[Record]:
    """Runs what has no result yet; returns the records of all that were asked for."""
    results, asked = store.section("outside"), {"seed": options.seed, "budget": options.budget}

    def is_there(name: str) -> bool:
        record = results.get(name)
        if options.again or record is None or record["asked"] != asked:
            return False
        return record["status"] == "passed" or not options.failed

    tasks = [{"op": "outside", "model": name, **asked} for name in names if not is_there(name)]
    bounds = Limits(options.jobs, options.timeout, int(options.memory * 2**30), threads=options.threads)
    for task, record in follow(WORKER, tasks, bounds, "outside"):
        record = {"model": task["model"], **record, "asked": asked}
        record["made"] = {"date": datetime.date.today().isoformat(), "versions": VERSIONS}
        store.put("outside", task["model"], record)
        told = f"right {record['cut']:.2f}× {record['form']}" if right(record) else trouble(record)
        note(f"{task['model']}: {told}, {record['total_seconds']:.0f} s")
    return [results[name] for name in names]


def _versions() -> dict[str, str]:
    """Of structprune, with its commit, and of the packages that the networks are from, as far as they are installed."""
    packages = ("torch", "onnxruntime", "torchvision", *PACKAGES_OUTSIDE)
    versions = {"structprune": with_commit(version("structprune"))}
    for name in packages:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def check_installed(names: Sequence[str]) -> None:
    """Ends with one line where a package that one of these networks is from is missing."""
    for package in dict.fromkeys(PACKAGES[name] for name in names):
        if package != "own" and package not in VERSIONS:
            fail(f"{package} is not installed: pip install -c constraints.txt -e '.[outside]' (or choose by --only)")


VERSIONS: dict[str, str] = {}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--only", metavar="A,B", default="", help="these networks")
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
    VERSIONS.update(_versions())
    names = [name.strip() for name in options.only.split(",") if name.strip()] or list(NETWORKS)
    for name in names:
        if name not in NETWORKS:
            near = difflib.get_close_matches(name, NETWORKS, n=3, cutoff=0.5)
            fail(f"unknown network {name!r}" + (f": did you mean {' or '.join(near)}?" if near else ""))
    check_installed(names)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        records = perform(names, options, Results(options.results))
    except KeyboardInterrupt:
        note(f"interrupted; what is done is in {options.results}: the same command goes on from there")
        raise SystemExit(130) from None
    if options.write:
        options.write.write_text(document(records), encoding="utf-8")
        note(f"wrote {options.write}")
    print(shlex.join([Path(sys.executable).name, *sys.argv]))
    print("\n".join([*(f"{r['model']}: {trouble(r)}" for r in records if not right(r)), counts(records)]))
    if any(record.get("silent") for record in records):
        raise SystemExit(3)


if __name__ == "__main__":
    main()
