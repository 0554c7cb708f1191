"""What zoo.py says about its records: the summary, and docs/zoo.md."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Record = dict[str, Any]
ENOUGH = 1.5  # times fewer MACs
SILENT = ("masked_vs_slim", "float64", "random_weights")
BROKEN = {"error": "errors", "timeout": "timed out", "memory": "over the memory cap"}
COLUMNS = (
    *("family", "model", "nodes", "groups", "prunable, module / graph", "MACs cut"),
    *("form", "gate", "ONNX parity", "barriers"),
)


# --- one record --------------------------------------------------------------------------------------------


def reached(record: Record) -> bool:
    """Whether the gate, which holds the ONNX parity, passed at a cut that is worth it."""
    return record["status"] == "passed" and bool(record["onnx_passed"]) and record["cut"] >= ENOUGH


def silent_mismatch(record: Record) -> bool:
    """Whether slim and masked network ran and differed in numbers or shapes."""
    compared = [record.get("gate", {}).get(name, {"passed": True}) for name in SILENT]
    return any(not c["passed"] and (c["max_rel"] > c["tolerance"] or "shape" in c["detail"]) for c in compared)


def merged(barriers: Iterable[Record]) -> list[Record]:
    """One entry for each op and reason, with its `count`, all its channels and the first module."""
    entries: dict[tuple[str, str], Record] = {}
    for barrier in barriers:
        entry = entries.setdefault((barrier["op"], barrier["reason"]), {**barrier, "channels": 0, "count": 0})
        entry["channels"] += barrier["channels"]
        entry["count"] += barrier.get("count", 1)
    return list(entries.values())


def main_barrier(record: Record) -> str:
    """The op and reason that keep most channels."""
    entries = merged(record.get("barriers", []))
    if not entries:
        return ""
    entry = max(entries, key=lambda e: e["channels"])
    times = f", {entry['count']} times" if entry["count"] > 1 else ""
    return f"{entry['op']} at {entry['module'] or 'top level'}{times}: {entry['reason']}"


def trouble(record: Record) -> str:
    """Why a model is not among those that passed at a sufficient cut, in one line."""
    barrier = main_barrier(record)
    if record["status"] == "passed":
        return f"cut {record['cut']:.2f}×; {barrier or 'no barrier'}"
    if record["status"] == "failed-gate":
        told = "; ".join(record["reasons"])
    else:
        told = ": ".join(str(record[key]) for key in ("error", "message") if record.get(key))
        if record["status"] == "error" and record.get("frames"):
            told += f" ({record['frames'][-1]})"
    return f"{record['status']}: {told}" + (f"; main barrier {barrier}" if barrier else "")


# --- the sweep ---------------------------------------------------------------------------------------------


def counts(records: Sequence[Record]) -> str:
    """The line that counts everything; each model is in one of the parts after "captured"."""
    status = Counter(record["status"] for record in records)
    enough, silent = sum(map(reached, records)), sum(map(silent_mismatch, records))
    broken = sum(status[name] for name in BROKEN)
    kinds = ", ".join(f"{status[name]} {text}" for name, text in BROKEN.items() if status[name] and name != "error")
    parts = [
        f"{sum(bool(record.get('traced')) for record in records)} captured",
        f"{enough} cut at least {ENOUGH}× with gate and ONNX parity passed",
        f"{status['passed'] - enough} passed below {ENOUGH}×",
        f"{status['failed-gate']} failed the gate ({silent} silent mismatch{'' if silent == 1 else 'es'})",
        f"{status['refused']} refused",
        f"{broken} error{'' if broken == 1 else 's'}" + (f" ({kinds})" if kinds else ""),
    ]
    return f"{len(records)} model{'' if len(records) == 1 else 's'}: " + ", ".join(parts)


def summary(records: Sequence[Record]) -> list[str]:
    """A line for each model that did not reach the cut, and for each crash of the other form; the counts last."""
    lines = [f"{record['model']}: {trouble(record)}" for record in records if not reached(record)]
    for record in records:
        for form, outcome in record.get("forms", {}).items():
            if outcome.get("status") == "error" and record["status"] != "error":
                lines.append(f"{record['model']}: form {form} broke: {outcome['error']}: {outcome['message']}")
    return [*lines, counts(records)]


def plan_summary(records: Sequence[Record], budget: float) -> list[str]:
    """Each kind of refusal and error with how many models met it and examples; the counts last."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for record in records:
        if record["status"] != "planned":
            text = f"{record['status']}: {record.get('error', '')}: {record.get('message', '')}"
            kinds[re.sub(r"[\d,.]*\d", "N", text)].append(record["model"])
    lines = []
    for text, models in sorted(kinds.items(), key=lambda item: -len(item[1])):
        more = f" and {len(models) - 4} more" if len(models) > 4 else ""
        lines.append(f"{len(models)} × {text} [{', '.join(models[:4])}{more}]")
    real = [record["model"] for record in records if record.get("meta_error") and record["status"] == "planned"]
    if real:
        lines.append(f"{len(real)} planned on real weights, as meta tensors do not do: {', '.join(real)}")
    status = Counter(record["status"] for record in records)
    full = sum(record["status"] == "planned" and record["budget"] <= budget for record in records)
    parts = [
        f"{status['planned']} planned ({full} at {budget:g} of the MACs, {status['planned'] - full} at the smallest "
        "budget that can be met)",
        f"{status['refused']} refused",
        *(f"{status[name]} {text}" for name, text in BROKEN.items()),
    ]
    return [*lines, f"{len(records)} model{'' if len(records) == 1 else 's'}: " + ", ".join(parts)]


def barrier_summary(records: Sequence[Record]) -> list[str]:
    """For each form, the op and reason of each barrier: how many models it is in, its channels there and examples."""
    lines = []
    for form in ("module", "graph"):
        found: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        traces = [(record["model"], record["traces"][form]) for record in records if form in record.get("traces", {})]
        for model, trace in traces:
            for barrier in trace["barriers"]:
                text = re.sub(r"\d[\d, ]*", "N ", barrier["reason"])
                found[barrier["op"], text].append((barrier["channels"], f"{model} {barrier['line']}"))
        lines += [
            "",
            f"{form} form, {len(traces)} models | op | models | channels | for example",
            "---|---|---|---|---",
        ]
        for (op, text), where in sorted(found.items(), key=lambda item: -len(item[1])):
            channels, example = sum(channels for channels, _ in where), max(where)[1]
            lines.append(f"{text} | {op} | {len(where)} | {channels} | {example}")
        shares = [trace["prunable"] for _, trace in traces]
        low = [f"{model} {trace['prunable']:.2f}" for model, trace in traces if trace["prunable"] < 0.5]
        if shares:
            lines.append(
                f"mean prunable share of the MACs {sum(shares) / len(shares):.3f}; below a half: {', '.join(low)}"
            )
    silent = [f"{r['model']} {key}" for r in records for t in r.get("traces", {}).values() for key in t["unexplained"]]
    failed = [f"{r['model']}: {r['status']} {r.get('message', '')}" for r in records if r["status"] != "traced"]
    return [*lines, "", f"stays without a reason: {', '.join(silent) or 'nothing'}", *failed]


# --- docs/zoo.md -------------------------------------------------------------------------------------------


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
        made(records),
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


def made(records: Sequence[Record]) -> str:
    """With what and when the records were made; all versions, should there be several."""
    packages = list(dict.fromkeys(name for record in records for name in record["made"]["versions"]))
    versions = []
    for name in packages:
        seen = dict.fromkeys(record["made"]["versions"].get(name, "?") for record in records)
        versions.append(f"{name} {' and '.join(seen)}")
    dates = sorted({record["made"]["date"] for record in records})
    days = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "never"
    return f"Made {days} with {', '.join(versions)}."


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
    found = [record.get("forms", {}).get(form, {}) for form in ("module", "graph")]
    return " / ".join(f"{o['prunable']:.2f}" if "prunable" in o else o.get("status", "-") for o in found)


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


def escape(text: str) -> str:
    """Plain text for a cell or a line of Markdown."""
    return re.sub(r"([|*<>`\[\]\\])", r"\\\1", " ".join(text.split()))
