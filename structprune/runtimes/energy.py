"""Joules of a forward pass, where Linux tells what the processor has taken (powercap, RAPL).

The counters are of whole processor packages: what idle cores and other work take is in them. So a figure is what the
machine spent while one pass after the other ran, not what the network alone cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


def available(root: Path = POWERCAP) -> bool:
    return bool(_counters(root))


def joules_per_run(run: Callable[[], Any], seconds: float = 1.0, root: Path = POWERCAP) -> float | None:
    """Runs for `seconds`, one pass after the other; None where there is no counter that may be read.

    A counter may wrap around once in that time.
    """
    before = _counters(root)
    if not before:
        return None
    runs, start = 0, time.perf_counter()
    while not runs or time.perf_counter() - start < seconds:
        run()
        runs += 1
    after = _counters(root)
    spent = 0
    for package, (value, most) in before.items():
        now = after.get(package, (value, most))[0]
        spent += now - value if now >= value else now + most - value
    return spent / 1e6 / runs


def _counters(root: Path) -> dict[str, tuple[int, int]]:
    """Microjoules of each package so far, and where its counter starts again."""
    counters = {}
    for domain in sorted(root.glob("intel-rapl:*")):  # also of AMD's processors
        try:
            if (domain / "name").read_text().startswith("package"):  # others are parts of it, or contain it
                most = int((domain / "max_energy_range_uj").read_text())
                counters[domain.name] = (int((domain / "energy_uj").read_text()), most)
        except (OSError, ValueError):  # only root may read it on many systems
            continue
    return counters
