"""What is printed and written of the records of random networks."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from statistics import fmean
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..random_networks import Case
from .checks import Figures
from .outcomes import BAD, DIED, OURS, THEIRS, TIMED_OUT, Outcome, Record, Settings, shrink

OUTCOMES = ("right", "wrong", "raised", "refused", "unclear")


def columns(records: Sequence[Record]) -> dict[str, list[Outcome]]:
    """The outcomes of each column of the table; structprune also on the networks that torch-pruning got."""
    both = [record for record in records if record.theirs is not None]
    result = {OURS: [record.ours for record in records]}
    if both and len(both) < len(records):
        result[f"{OURS} on {len(both):,}"] = [record.ours for record in both]
    if both:
        result[THEIRS] = [record.theirs for record in both if record.theirs is not None]
    return result


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The counts of a column, and what share of MACs, groups and weight tensors was cut."""
    counts = Counter(outcome.outcome for outcome in outcomes)
    cuts = [outcome.macs_cut for outcome in outcomes if outcome.macs_cut is not None]
    figures = [outcome.figures for outcome in outcomes if isinstance(outcome.figures, Figures)]
    result: dict[str, Any] = {"networks": len(outcomes), **{name: counts[name] for name in OUTCOMES}}
    result["macs_cut"] = fmean(cuts) if cuts else None
    for name in ("groups", "weights"):
        total = sum(getattr(f, name) for f in figures)
        result[f"{name}_cut"] = sum(getattr(f, f"{name}_cut") for f in figures) / total if total else None
    return result


def table(records: Sequence[Record]) -> Table:
    """The counts of both tools, side by side."""
    shown = Table(title="Random networks", title_justify="left")
    shown.add_column("")
    summaries = []
    for name, outcomes in columns(records).items():
        shown.add_column(name, justify="right")
        summaries.append(summary(outcomes))
    labels = {"networks": "networks", "right": "right", "wrong": "silently wrong", "raised": "raised"}
    labels |= {"refused": "refused", "unclear": "unclear (statistic)"}
    for key, label in labels.items():
        shown.add_row(label, *(_count(s, key) for s in summaries), end_section=key in ("networks", "unclear"))
    labels = {"macs_cut": "MACs cut (mean, if right)", "groups_cut": "groups cut", "weights_cut": "weight tensors cut"}
    for key, label in labels.items():
        shown.add_row(label, *("-" if s[key] is None else f"{100 * s[key]:.1f} %" for s in summaries))
    return shown


def _count(counts: dict[str, Any], key: str) -> str:
    share = f" ({100 * counts[key] / counts['networks']:.1f} %)" if key != "networks" and counts["networks"] else ""
    text = f"{counts[key]:,}{share}"
    return f"[red]{text}[/red]" if key in BAD and counts[key] else text


def failures(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Failures by tool, outcome and kind, most frequent first, each with the smallest network that was seen."""
    sorts: dict[tuple[str, str, str], list[tuple[Case, Outcome]]] = {}
    for record in records:
        for tool, one in ((OURS, record.ours), (THEIRS, record.theirs)):
            if one is not None and one.outcome in (*BAD, "refused"):
                sorts.setdefault((tool, one.outcome, one.kind), []).append((record.case, one))
    result = []
    for (tool, outcome, kind), pairs in sorted(sorts.items(), key=lambda item: (item[0][0], -len(item[1]))):
        case, example = min(pairs, key=lambda pair: (len(pair[0].blocks), pair[0].seed))
        same = {"tool": tool, "outcome": outcome, "kind": kind, "count": len(pairs)}
        result.append({**same, "detail": example.detail, "case": case})
    return result


def barriers(records: Sequence[Record]) -> Counter[str]:
    """In how many of structprune's networks each op was a barrier, with its reason."""
    networks: Counter[str] = Counter()
    for record in records:
        if isinstance(record.ours.figures, Figures):
            reasons = {
                f"{op}: {re.sub(r'[0-9, ()]*[0-9][0-9, ()]*', ' N ', r)}" for op, r in record.ours.figures.barriers
            }
            networks.update(reasons)
    return networks


def command_of(case: Case, onnx: bool = False) -> str:
    """The command that examines this network alone."""
    text = f"python tools/fuzz.py --spec {shlex.quote(case.spec)} --seed {case.seed} --ratio {case.ratio:g}"
    return text + " --onnx" * onnx


def lines(record: Record) -> list[str]:
    """One network, and what became of it under each tool."""
    case = record.case
    result = [f"{case.spec}, seed {case.seed}, ratio {case.ratio:g}", str(case.build()[0])]
    for tool, one in ((OURS, record.ours), (THEIRS, record.theirs)):
        if one is not None:
            result.append(f"{tool}: {one.outcome} {one.kind} {one.detail} {one.figures or ''}".rstrip())
    return result


def show(
    records: Sequence[Record], settings: Settings, console: Console, smaller: int, most_barriers: int
) -> list[dict[str, Any]]:
    """Prints everything.

    Args:
        records: Of all networks.
        settings: What was asked of each.
        console: Where to.
        smaller: How many kinds of failure are made smaller, block by block.
        most_barriers: How many barriers are listed.

    Returns:
        The failures, structprune's with their smallest networks.
    """
    console.print(table(records))
    plain = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    listed = failures(records)
    for number, failure in enumerate(listed):
        case = failure.pop("case")
        if number < smaller and failure["kind"] not in (TIMED_OUT, DIED):
            case = shrink(case, *settings.of(failure["tool"]))
        failure["command"] = command_of(case, settings.onnx)
        sort = f"{failure['tool']}, {failure['outcome']}, {failure['count']}×"
        console.print(f"[bold]{sort}[/bold] {escape(failure['kind'])}", highlight=False, soft_wrap=True)
        plain(f"    {failure['detail'][:200]}\n    {failure['command']}")
    common = barriers(records).most_common(most_barriers)
    if common:
        console.print("[bold]structprune's barriers, by networks[/bold]")
    for reason, count in common:
        plain(f"    {count:5,}  {reason}")
    return listed


def data_of(records: Sequence[Record], listed: list[dict[str, Any]], with_peer: bool) -> dict[str, Any]:
    """Everything as plain data, for a file: summaries, failures, barriers and each network's outcomes."""

    def outcome(one: Outcome | None) -> dict[str, Any] | None:
        return None if one is None else {**asdict(one), "macs_cut": one.macs_cut}

    networks = [
        {
            "spec": record.case.spec,
            "seed": record.case.seed,
            "ratio": record.case.ratio,
            OURS: outcome(record.ours),
            THEIRS: outcome(record.theirs),
        }
        for record in records
    ]
    return {
        "versions": {"torch": torch.__version__, THEIRS: version(THEIRS) if with_peer else None},
        "summary": {name: summary(outcomes) for name, outcomes in columns(records).items()},
        "failures": listed,
        "barriers": dict(barriers(records).most_common()),
        "networks": networks,
    }
