"""Draws docs/pictures/training.svg from the tables of docs/training.md.

    python tools/training_picture.py

Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from structprune.suites.command_line import Parser, note
from structprune.suites.training_picture import draw

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, metavar="FILE", default=DOCS / "pictures" / "training.svg")
    options = parser.parse_args(arguments)
    draw((DOCS / "training.md").read_text(encoding="utf-8"), options.out)
    note(f"wrote {options.out}")


if __name__ == "__main__":
    main()
