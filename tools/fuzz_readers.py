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

import sys
import tempfile
from pathlib import Path

from structprune.suites.command_line import Parser, fail, whole
from structprune.suites.readers.chunks import lines, read_all


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--n", type=whole, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=whole, default=1)
    parser.add_argument("--memory", type=int, default=1024, help="MiB of address space beyond the good files' (1024)")
    parser.add_argument("--out", type=Path, help="a JSON file for the counts, and to go on from")
    parser.add_argument("--only", type=int, help="the number of one file")
    options = parser.parse_args()
    if options.memory < 64:
        fail(f"--memory {options.memory}: give 64 or more")
    if options.only is not None:
        from structprune.suites.readers.child import readers_of

        with tempfile.TemporaryDirectory() as folder:
            print(readers_of(Path(folder), options.seed).read(options.only))
        return
    try:
        result = read_all(options.n, options.seed, options.memory, options.jobs, options.out)
    except KeyboardInterrupt:
        print("interrupted; --out has what is done", file=sys.stderr)
        raise SystemExit(130) from None
    print("\n".join(lines(result)))
    raise SystemExit(int(result["wrong"] > 0))


if __name__ == "__main__":
    main()
