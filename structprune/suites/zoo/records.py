"""What one record of the zoo says: whether a model was cut far enough and proven, and what stood in the way."""

from __future__ import annotations

from collections.abc import Iterable

from ..pool import Record, reason

ENOUGH = 1.5  # times fewer MACs
SILENT = ("masked_vs_slim", "float64", "random_weights")


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
    why = "; ".join(record["reasons"]) if record["status"] == "failed-gate" else reason(record)
    return f"{record['status']}: {why}" + (f"; main barrier {barrier}" if barrier else "")
