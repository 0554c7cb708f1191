"""Which cores a timing runs on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
STAT = Path("/proc/stat")
LOOK = 0.2  # seconds


@contextmanager
def pinned(threads: int, *, cpus: Path = CPUS, stat: Path = STAT) -> Iterator[list[int] | None]:
    """Pins the calling thread, and so those that it starts, to the idlest cores; the cores, or None if none was pinned.

    There are as many as `threads`, each another physical core where the machine tells and has enough. Threads that are
    there already stay where they are: an engine with a pool of its own is not for this. Put back at the end.
    """
    allowed = _allowed()
    if len(allowed) <= threads:  # nothing to choose, or no such system
        yield None
        return
    chosen = idlest(allowed, threads, cpus, stat)
    try:
        os.sched_setaffinity(0, chosen)
    except OSError:  # not permitted
        yield None
        return
    try:
        yield chosen
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)


def _allowed() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return []


def idlest(allowed: list[int], count: int, cpus: Path = CPUS, stat: Path = STAT) -> list[int]:
    """`count` of the cores, those idlest in a short look; of two on one physical core, the second comes last."""
    before = busy_ticks(stat)
    time.sleep(LOOK)
    after = busy_ticks(stat)
    order = sorted(allowed, key=lambda core: (after.get(core, 0) - before.get(core, 0), core))
    first: dict[str, int] = {}
    for core in order:
        first.setdefault(_physical(core, cpus), core)
    return sorted(sorted(order, key=lambda core: core not in first.values())[:count])


def busy_ticks(stat: Path) -> dict[int, int]:
    """Ticks that each core has spent on anything since the start of the machine."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return {}
    busy = {}
    for line in lines:
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            idle, waiting = int(ticks[3]), int(ticks[4])
            busy[int(name[3:])] = sum(map(int, ticks[:8])) - idle - waiting
    return busy


def _physical(core: int, cpus: Path) -> str:
    """The logical cores of its physical one; itself where the machine does not tell."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        with contextlib.suppress(OSError):
            return (cpus / f"cpu{core}" / "topology" / name).read_text().strip()
    return str(core)
