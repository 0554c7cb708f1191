"""Many changed files, in chunks, each in a process of its own whose memory is bounded."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..command_line import note
from ..results import Results, replace_text

CHUNK = 10_000
GOOD = ("read", "refused")
STILL = 60  # seconds on one file after which a process is killed
CHILD = "structprune.suites.readers.child"
SHOWN = 40  # failures that are printed
HOME = Path(__file__).parents[3]  # where a child imports this package from, as its parent does


def read_all(files: int, seed: int, memory: int, jobs: int, path: Path | None = None) -> dict[str, Any]:
    """Reads files chunk by chunk, but for the chunks of the same seed that the results file holds already.

    Args:
        files: How many.
        seed: Of the files.
        memory: MiB of address space that a process may take beyond what the good files need.
        jobs: Chunks at once.
        path: The results file, which is written anew after each chunk.

    Returns:
        All chunks added up, as `report` does.
    """
    held = Results(path).data if path else {}
    same = held.get("seed") == seed and held.get("chunk") == CHUNK
    chunks: dict[str, Any] = held.get("chunks", {}) if same else {}
    writing = threading.Lock()

    def read(start: int) -> None:
        counted = count_outcomes(seed, memory, start, min(CHUNK, files - start))
        with writing:
            chunks[str(start)] = counted
            result = report(seed, chunks)
            if path:
                replace_text(path, json.dumps(result, indent=1) + "\n")
        note(f"{result['files']:,} files: {result['outcomes']}")

    with ThreadPoolExecutor(jobs) as pool:
        missing = [start for start in range(0, files, CHUNK) if str(start) not in chunks]
        list(pool.map(read, missing))
    return report(seed, chunks)


def lines(result: dict[str, Any]) -> list[str]:
    """What the terminal shows of a report: the counts of each reader, the extremes, and the first failures."""
    counts = [f"{kind:16} {counts}" for kind, counts in result["readers"].items()]
    extremes = (
        f"{result['files']:,} files, {result['wrong']} wrong; the slowest took {result['slowest']:.2f} s, the largest "
        f"process grew to {result['peak_mib']:,} MiB from {result['base_mib']:,}"
    )
    failures = [
        f"  {entry['outcome']}: {entry['kind']} --seed {result['seed']} --only {entry['number']}: {entry['detail']}"
        for entry in result["failures"][:SHOWN]
    ]
    return [*counts, extremes, *failures]


def count_outcomes(seed: int, memory: int, start: int, count: int) -> dict[str, Any]:
    """Reads files in processes of their own, which go on behind a file on which one died.

    Args:
        seed: Of the files.
        memory: MiB of address space that a process may take beyond what the good files need.
        start: The number of the first file.
        count: How many.

    Returns:
        `counts` of outcomes by reader, `failures`, and the largest `slowest` (seconds), `base_mib` and `peak_mib`.
    """
    done: dict[str, Any] = {"counts": {}, "failures": [], "slowest": 0.0, "base_mib": 0, "peak_mib": 0}
    place = start
    with tempfile.TemporaryDirectory() as folder:
        while place < start + count:
            status = Path(folder) / "status.json"
            status.write_text(json.dumps({"next": place}))
            task = {"seed": seed, "memory": memory, "start": place, "end": start + count, "folder": folder}
            with (Path(folder) / "errors.txt").open("w+b") as errors:
                command = [sys.executable, "-m", CHILD, json.dumps(task)]
                child = subprocess.Popen(command, stderr=errors, cwd=HOME)
                died = _watch(child, status)
                errors.seek(0)
                last = errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            state = json.loads(status.read_text())
            _add(done, state)
            place = state["next"]
            if died:
                kind = Counter({"died": 1})
                _add(done, {"counts": {"?": kind}, "failures": [{"number": place, "kind": "?", "outcome": "died",
                                                                 "detail": f"{died} {last}"}]})  # fmt: skip
                place += 1
    return done


def _add(done: dict[str, Any], part: dict[str, Any]) -> None:
    for kind, counts in part.get("counts", {}).items():
        done["counts"][kind] = dict(Counter(done["counts"].get(kind, {})) + Counter(counts))
    done["failures"] += part.get("failures", [])
    for name in ("slowest", "base_mib", "peak_mib"):
        done[name] = max(done[name], part.get(name, 0))


def _watch(child: subprocess.Popen[bytes], status: Path) -> str:
    """Waits for a child; why it died, if it did."""
    last, since = b"", time.monotonic()
    while child.poll() is None:
        time.sleep(0.2)
        now = status.with_suffix(".now").read_bytes() if status.with_suffix(".now").exists() else b""
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > STILL + (240 if not last else 0):  # it imports torch first
            child.kill()
            child.wait()
    return "" if child.returncode == 0 else f"exit code {child.returncode}"


def report(seed: int, chunks: dict[str, Any]) -> dict[str, Any]:
    """All chunks added up, with the chunks, as the results file holds them."""
    readers: dict[str, Counter[str]] = {}
    for chunk in chunks.values():
        for kind, counts in chunk["counts"].items():
            readers.setdefault(kind, Counter()).update(counts)
    total = sum(readers.values(), Counter[str]())
    return {
        "seed": seed,
        "chunk": CHUNK,
        "files": total.total(),
        "wrong": sum(count for outcome, count in total.items() if outcome not in GOOD),
        "outcomes": dict(total),
        "readers": {kind: dict(counts) for kind, counts in sorted(readers.items())},
        "slowest": max(chunk["slowest"] for chunk in chunks.values()),
        "base_mib": max(chunk["base_mib"] for chunk in chunks.values()),
        "peak_mib": max(chunk["peak_mib"] for chunk in chunks.values()),
        "failures": [entry for chunk in chunks.values() for entry in chunk["failures"]],
        "chunks": chunks,
    }
