"""A process that reads one changed file after the other: `python -m structprune.suites.readers.child TASK`."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from .chunks import GOOD, STILL
from .reading import Readers


def main(task: dict[str, Any]) -> None:
    """Files from `start` to `end`; notes the number of each before it is read, and the counts after it."""
    start, folder = task["start"], Path(task["folder"])
    readers = readers_of(folder / str(start), task["seed"])
    os.chdir(readers.place)
    base = _size_mib()
    limit = (base + task["memory"]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process
    state: dict[str, Any] = {"counts": {}, "failures": [], "slowest": 0.0, "base_mib": _peak_mib(), "peak_mib": 0}
    now = os.open(folder / "status.now", os.O_WRONLY | os.O_CREAT)
    for number in range(start, task["end"]):
        os.pwrite(now, number.to_bytes(8, "little"), 0)
        signal.alarm(STILL)
        result = readers.read(number)
        signal.alarm(0)
        counts = state["counts"].setdefault(result.kind, {})
        counts[result.outcome] = counts.get(result.outcome, 0) + 1
        state["slowest"], state["peak_mib"] = max(state["slowest"], result.seconds), _peak_mib()
        if result.outcome not in GOOD:
            state["failures"].append({"number": number, **vars(result)})
        state["next"] = number + 1
        (folder / "status.json").write_text(json.dumps(state))


def readers_of(folder: Path, seed: int) -> Readers:
    """The files of a seed, for a process that does nothing else."""
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    folder.mkdir(exist_ok=True)
    return Readers(folder, seed)


def _size_mib() -> int:
    """The address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") >> 20


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
