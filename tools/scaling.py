"""How the time to trace and plan grows with the number of nodes: the same networks at rising depth, on the meta device.

python tools/scaling.py [--repeats 3] [--write docs/scaling.png]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from structprune.suites.command_line import Parser, whole
from structprune.suites.scaling import HEADER, draw, line, measure_all


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--repeats", type=whole, default=3)
    parser.add_argument("--write", type=Path, help="a picture of the curve")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(HEADER)
    points = []
    for point in measure_all(options.repeats):
        points.append(point)
        print(line(point), flush=True)
    if options.write:
        draw(points, options.write)


if __name__ == "__main__":
    main()
