"""Changed files through the readers of plans, saved networks (with the dense network and without) and recipes.

    python tools/fuzz_readers.py --n 100000 --seed 0 --jobs 1 --out readers.json
    python tools/fuzz_readers.py --seed 0 --only 4711

File number i is made from the seed and i: bytes of a good file changed at random, or values of its JSON, YAML or
safetensors header, most of them with hashes that fit again, as a forger would make them. A reader gives what it reads
or one of the project's own errors. Anything else counts, with the file's number:

    raised     another exception, MemoryError included: no more than --memory MiB beyond what the good files take
    slow       more than a second of the processor's time
    executed   a process, a connection, an import from outside, an unpickling, or a function that the file names
    wrote      a file was written
    not one line   an error of more lines than there are mistakes to tell of (ten of a recipe, and how many more)
    died       the process was killed, or stood still for a minute

Work is done in chunks, each in a process of its own; what --out holds of the same seed is not done again.
Exit codes: 0 nothing wrong, 1 something was, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checks live in tests/

from structprune.suites.command_line import Parser, fail  # noqa: E402

CHUNK = 10_000
GOOD = ("read", "refused")
STILL = 60  # seconds on one file after which a process is killed


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--memory", type=int, default=1024, help="MiB of address space beyond the good files' (1024)")
    parser.add_argument("--out", type=Path, help="a JSON file for the counts, and to go on from")
    parser.add_argument("--only", type=int, help="the number of one file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.n < 1 or options.jobs < 1 or options.memory < 64:
        fail("--n and --jobs take 1 or more, --memory 64 or more")
    if options.child:
        _child(options, int(options.child[0]), Path(options.child[1]))
    elif options.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(_readers(Path(folder), options.seed).read(options.only))
    else:
        raise SystemExit(_all(options))


def _all(options: argparse.Namespace) -> int:
    held = json.loads(options.out.read_text()) if options.out and options.out.is_file() else {}
    same = held.get("seed") == options.seed and held.get("chunk") == CHUNK
    chunks: dict[str, Any] = held.get("chunks", {}) if same else {}
    wanted = [start for start in range(0, options.n, CHUNK) if str(start) not in chunks]

    def run(start: int) -> None:
        chunks[str(start)] = _chunk(options, start, min(CHUNK, options.n - start))
        report = _report(options, chunks)
        if options.out:
            options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"{report['files']:,} files: {report['outcomes']}", file=sys.stderr, flush=True)

    try:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(run, wanted))
    except KeyboardInterrupt:
        return 130
    report = _report(options, chunks)
    for kind, counts in report["readers"].items():
        print(f"{kind:16} {counts}")
    print(
        f"{report['files']:,} files, {report['wrong']} wrong; the slowest took {report['slowest']:.2f} s, the largest "
        f"process grew to {report['peak_mib']:,} MiB from {report['base_mib']:,}"
    )
    for entry in report["failures"][:40]:
        print(
            f"  {entry['outcome']}: {entry['kind']} --seed {options.seed} --only {entry['number']}: {entry['detail']}"
        )
    return int(report["wrong"] > 0)


def _report(options: argparse.Namespace, chunks: dict[str, Any]) -> dict[str, Any]:
    readers: dict[str, Counter[str]] = {}
    for chunk in chunks.values():
        for kind, counts in chunk["counts"].items():
            readers.setdefault(kind, Counter()).update(counts)
    total = sum(readers.values(), Counter[str]())
    return {
        "seed": options.seed,
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


def _chunk(options: argparse.Namespace, start: int, count: int) -> dict[str, Any]:
    """The counts of one chunk, by processes that go on behind a file on which one died."""
    done: dict[str, Any] = {"counts": {}, "failures": [], "slowest": 0.0, "base_mib": 0, "peak_mib": 0}
    place = start
    with tempfile.TemporaryDirectory() as folder:
        while place < start + count:
            status = Path(folder) / "status.json"
            status.write_text(json.dumps({"next": place}))
            job = [sys.executable, __file__, "--seed", str(options.seed), "--memory", str(options.memory)]
            with (Path(folder) / "errors.txt").open("w+b") as errors:
                child = subprocess.Popen(
                    [*job, "--n", str(start + count), "--child", str(place), folder], stderr=errors
                )
                died = _watch(child, status)
                errors.seek(0)
                last = errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            told = json.loads(status.read_text())
            _add(done, told)
            place = told["next"]
            if died:
                kind = Counter({"died": 1})
                _add(done, {"counts": {"?": kind}, "failures": [{"number": place, "kind": "?", "outcome": "died",
                                                                 "detail": f"{died} {last}"}]})  # fmt: skip
                place += 1
    return done


def _add(done: dict[str, Any], told: dict[str, Any]) -> None:
    for kind, counts in told.get("counts", {}).items():
        done["counts"][kind] = dict(Counter(done["counts"].get(kind, {})) + Counter(counts))
    done["failures"] += told.get("failures", [])
    for name in ("slowest", "base_mib", "peak_mib"):
        done[name] = max(done[name], told.get(name, 0))


def _watch(child: subprocess.Popen[bytes], status: Path) -> str:
    """Waits for a child; why it died, if it did."""
    seen, since = b"", time.monotonic()
    while child.poll() is None:
        time.sleep(0.2)
        now = status.with_suffix(".now").read_bytes() if status.with_suffix(".now").exists() else b""
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > STILL + (240 if not seen else 0):  # it imports torch first
            child.kill()
            child.wait()
    return "" if child.returncode == 0 else f"exit code {child.returncode}"


def _child(options: argparse.Namespace, start: int, folder: Path) -> None:
    """Files from `start` to --n; notes the number of each before it is read, and the counts after it."""
    readers = _readers(folder / str(start), options.seed)
    os.chdir(readers.place)
    base = _size_mib()
    limit = (base + options.memory) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process
    told: dict[str, Any] = {"counts": {}, "failures": [], "slowest": 0.0, "base_mib": _peak_mib(), "peak_mib": 0}
    now = os.open(folder / "status.now", os.O_WRONLY | os.O_CREAT)
    for number in range(start, options.n):
        os.pwrite(now, number.to_bytes(8, "little"), 0)
        signal.alarm(STILL)
        result = readers.read(number)
        signal.alarm(0)
        counts = told["counts"].setdefault(result.kind, {})
        counts[result.outcome] = counts.get(result.outcome, 0) + 1
        told["slowest"], told["peak_mib"] = max(told["slowest"], result.seconds), _peak_mib()
        if result.outcome not in GOOD:
            told["failures"].append({"number": number, **vars(result)})
        told["next"] = number + 1
        (folder / "status.json").write_text(json.dumps(told))


def _readers(folder: Path, seed: int) -> Any:
    import torch

    from tests.reader_checks import Readers

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
    main()
