"""Draws the pictures in docs/pictures that are of a page's tables: speed.svg and training.svg.

    python tools/pictures.py

Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from structprune.suites import training_picture
from structprune.suites.command_line import Parser, note
from structprune.suites.speed import picture as speed_picture

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=DOCS / "pictures")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    speeds, training = ((DOCS / page).read_text(encoding="utf-8") for page in ("speed.md", "training.md"))
    speed_picture.draw(speed_picture.speedups_of(speeds), options.out / "speed.svg")
    training_picture.draw(training, options.out / "training.svg")
    note(f"wrote speed.svg and training.svg into {options.out}")


if __name__ == "__main__":
    main()
