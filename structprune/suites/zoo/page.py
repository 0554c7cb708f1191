"""docs/zoo.md, written from the records of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..markdown import escape
from ..pool import Record
from ..results import Results, origin
from .records import ENOUGH, merged, reached, trouble
from .summary import counts
from .sweep import Zoo

COLUMNS = (
    *("family", "model", "nodes", "groups", "prunable, module / graph", "MACs cut"),
    *("form", "gate", "ONNX parity", "barriers"),
)


def document_of(zoo: Zoo, results: Results, command: str) -> str:
    """The text of docs/zoo.md: the smallest models that have a result.

    Args:
        zoo: The families, and what was asked of each model.
        results: The file of the sweep.
        command: What writes the page, as it says itself.

    Returns:
        Markdown.
    """
    smallest, entries = results.section("smallest"), results.section("results")
    empty = {family: smallest[family]["why"] for family in zoo.families if smallest.get(family, {}).get("why")}
    models = [smallest[family]["model"] for family in zoo.families if family in smallest]
    about = {
        "command": command,
        "budget": zoo.settings.budget,
        "seed": zoo.settings.seed,
        "families": len(zoo.families),
    }
    return document([entries[model] for model in models if model in entries], empty, about)


def document(records: Sequence[Record], empty: Mapping[str, str], about: Mapping[str, Any]) -> str:
    """The page; `empty` maps families without a model to the reason, `about` holds command, budget and seed."""
    records = sorted(records, key=lambda record: record["family"])
    lines = [
        "# The timm zoo",
        "",
        f"The smallest model of each family of timm ({len(records)} of {about['families']}): random weights under seed "
        f"{about['seed']}, a random image of the model's default size, criterion l1, uniform allocation, "
        f"{about['budget']:g} of the MACs as the budget or else the smallest budget that can be met. Written by",
        "",
        "```sh",
        about["command"],
        "```",
        "",
        origin(records),
        "",
        f"**{counts(records)}.**",
        "",
        "*Prunable* is what goes of the MACs with one unit left in each group, in each form; *form* is that of the "
        "slim network that was gated, with the cut of the other form where both were planned.",
        "",
        *(f"Family {family}: {why}." for family, why in empty.items()),
        *([""] if empty else []),
        "| " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---:|" * 4 + "---|" * 4,
        *("| " + " | ".join(map(escape, row(record))) + " |" for record in records),
        "",
        f"## Not cut {ENOUGH}× and passed",
        "",
    ]
    for record in records:
        if not reached(record):
            lines += [f"**{record['model']}** ({record['family']}): {escape(trouble(record).partition(';')[0])}", ""]
            entries = sorted(merged(record.get("barriers", [])), key=lambda e: -e["channels"])
            lines += [f"- {escape(barrier_line(entry))}" for entry in entries]
            lines += [""] if entries else []
    return "\n".join(lines).rstrip() + "\n"


def row(record: Record) -> tuple[str, ...]:
    known, gated = record.get("traced"), "gate_passed" in record
    return (
        record["family"],
        record["model"],
        str(record["nodes"]) if known and record["nodes"] is not None else "-",
        str(record["groups"]) if known else "-",
        shares(record) if known else "-",
        f"{record['cut']:.2f}×" if record.get("cut") else "-",
        forms(record),
        ("passed" if record["gate_passed"] else "FAILED") if gated else record["status"],
        ("passed" if record["onnx_passed"] else "FAILED") if gated else "-",
        short_barriers(record) if known else "-",
    )


def shares(record: Record) -> str:
    """The prunable share of the MACs in the module form and in the graph form, or what became of that form."""
    outcomes = [record.get("forms", {}).get(form, {}) for form in ("module", "graph")]
    return " / ".join(f"{o['prunable']:.2f}" if "prunable" in o else o.get("status", "-") for o in outcomes)


def forms(record: Record) -> str:
    tried = {
        form: outcome for form, outcome in record.get("forms", {}).items() if "cut" in outcome or "status" in outcome
    }
    used = record.get("form", "")
    others = [f"{form} {o['cut']:.2f}×" if "cut" in o else f"{form} {o['status']}" for form, o in tried.items() if form]
    others = [text for text in others if not used or not text.startswith(used)]
    return (used or "-") + (f" ({', '.join(others)})" if others else "")


def short_barriers(record: Record, limit: int = 60) -> str:
    entries = merged(record["barriers"])
    if not entries:
        return "0"
    most = max(entries, key=lambda entry: entry["count"])
    reason = f"{most['op']}: {most['reason']}"
    reason = reason if len(reason) <= limit else reason[: limit - 1].rstrip() + "…"
    return f"{sum(entry['count'] for entry in entries)} ({most['count']}× {reason})"


def barrier_line(entry: Record) -> str:
    times = f"{entry['count']}× " if entry["count"] > 1 else ""
    return f"{times}{entry['op']}: {entry['reason']} ({entry['channels']:,} channels; {entry['module'] or 'top level'})"
