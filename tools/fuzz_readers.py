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
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from structprune.suites.command_line import Parser, fail
from structprune.suites.readers.chunks import CHUNK, count_outcomes, report


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--memory", type=int, default=1024, help="MiB of address space beyond the good files' (1024)")
    parser.add_argument("--out", type=Path, help="a JSON file for the counts, and to go on from")
    parser.add_argument("--only", type=int, help="the number of one file")
    options = parser.parse_args()
    if options.n < 1 or options.jobs < 1 or options.memory < 64:
        fail("--n and --jobs take 1 or more, --memory 64 or more")
    if options.only is not None:
        from structprune.suites.readers.child import readers_of

        with tempfile.TemporaryDirectory() as folder:
            print(readers_of(Path(folder), options.seed).read(options.only))
    else:
        raise SystemExit(read_all(options))


def read_all(options: argparse.Namespace) -> int:
    held = json.loads(options.out.read_text()) if options.out and options.out.is_file() else {}
    same = held.get("seed") == options.seed and held.get("chunk") == CHUNK
    chunks: dict[str, Any] = held.get("chunks", {}) if same else {}
    missing = [start for start in range(0, options.n, CHUNK) if str(start) not in chunks]

    def run(start: int) -> None:
        chunks[str(start)] = count_outcomes(options.seed, options.memory, start, min(CHUNK, options.n - start))
        result = report(options.seed, chunks)
        if options.out:
            options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{result['files']:,} files: {result['outcomes']}", file=sys.stderr, flush=True)

    try:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(run, missing))
    except KeyboardInterrupt:
        return 130
    result = report(options.seed, chunks)
    for kind, counts in result["readers"].items():
        print(f"{kind:16} {counts}")
    print(
        f"{result['files']:,} files, {result['wrong']} wrong; the slowest took {result['slowest']:.2f} s, the largest "
        f"process grew to {result['peak_mib']:,} MiB from {result['base_mib']:,}"
    )
    for entry in result["failures"][:40]:
        print(
            f"  {entry['outcome']}: {entry['kind']} --seed {options.seed} --only {entry['number']}: {entry['detail']}"
        )
    return int(result["wrong"] > 0)


if __name__ == "__main__":
    main()
