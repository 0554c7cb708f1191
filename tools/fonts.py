"""Fetches fonts out of Debian's packages into a folder, by apt-get, to render text in.

    python tools/fonts.py fonts
    structprune run recipes/english_ocr.yaml --set data.fonts=fonts

Nothing is installed. Whose fonts they are, and under which licences, is in `PACKAGE.copyright.txt` beside them. Where
there is no apt-get, give a folder of your own.

Exit codes: 0 done, 2 a package can't be had, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from structprune.suites.command_line import Parser, names
from structprune.suites.debian_packages import fetch_all
from structprune.suites.fonts import PACKAGES, fetch


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="gets the fonts")
    parser.add_argument("--packages", metavar="A,B", type=names, default=PACKAGES, help=", ".join(PACKAGES))
    options = parser.parse_args(arguments)
    fetch_all(options.packages, fetch, options.folder, "fonts")


if __name__ == "__main__":
    main()
