"""What the zoo prints of all its records: a line for what fell short, and the counts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from ..pool import Record
from .records import ENOUGH, reached, silent_mismatch, trouble

BROKEN = {"error": "errors", "timeout": "timed out", "memory": "over the memory cap"}


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
        kinds: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        traces = [(record["model"], record["traces"][form]) for record in records if form in record.get("traces", {})]
        for model, trace in traces:
            for barrier in trace["barriers"]:
                text = re.sub(r"\d[\d, ]*", "N ", barrier["reason"])
                kinds[barrier["op"], text].append((barrier["channels"], f"{model} {barrier['line']}"))
        lines += [
            "",
            f"{form} form, {len(traces)} models | op | models | channels | for example",
            "---|---|---|---|---",
        ]
        for (op, text), where in sorted(kinds.items(), key=lambda item: -len(item[1])):
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
