"""What one record says: whether every step held, and what stood in the way; and the counts of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..pool import Record
from ..zoo.page import barrier_line
from ..zoo.records import ENOUGH, merged


def right(record: Record) -> bool:
    """Whether every step held, at a cut that is worth it."""
    return record["status"] == "passed" and record.get("cut", 0) >= ENOUGH


def trouble(record: Record) -> str:
    """Why a network is not among the right ones, in one line."""
    if record["status"] == "passed":
        entries = sorted(merged(record.get("barriers", [])), key=lambda e: -e["channels"])
        return f"cut {record['cut']:.2f}×" + (f"; most by {barrier_line(entries[0])}" if entries else "")
    if record["status"] == "failed":
        return "; ".join(f"{step}: {fault}" for step, fault in record["faults"].items())
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
