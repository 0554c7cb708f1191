"""Times a network against itself: a sound benchmark finds a speedup of 1.00 inside its interval.

python tools/timing_noise.py [--model resnet18 | --onnx FILE] [--repeats 5] [--seconds 5] [--threads 1] [--batch 1]
                             [--pin]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from structprune.errors import StructPruneError
from structprune.suites.against_itself import export_model, header, line, repeats, summary
from structprune.suites.command_line import Parser, fail, positive, whole


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--model", default="resnet18", help="a timm model, with random weights")
    parser.add_argument("--onnx", type=Path, help="an ONNX file instead, for example runs/quickstart/dense.onnx")
    parser.add_argument("--repeats", type=whole, default=5)
    parser.add_argument("--seconds", type=positive, default=5.0)
    parser.add_argument("--threads", type=whole, default=1)
    parser.add_argument("--batch", type=whole, default=1)
    parser.add_argument("--pin", action="store_true", help="stay on the idlest cores, as many as there are threads")
    options = parser.parse_args(arguments)
    settings = {name: getattr(options, name) for name in ("batch", "threads", "seconds", "pin")}
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = options.onnx or export_model(options.model, Path(folder) / "dense.onnx")
            print(header(options.threads, options.batch))
            results = []
            for result in repeats(file, options.repeats, **settings):
                results.append(result)
                print(f"{len(results)}: {line(result)}")
    except StructPruneError as error:
        fail(str(error), error.exit_code)
    print(summary(results))


if __name__ == "__main__":
    main()
