"""Fetches photographs out of Debian's packages into the cache folder, by apt-get.

They show things with names, and wallpapers; things that are cut out are put onto those.

    python tools/photographs.py
    python tools/photographs.py --packages gnome-backgrounds --out photographs

Recipes that calibrate on sample images (`data: {source: images}`) use them when they are there, and say so. Nothing is
installed. Whose pictures they are, and under which licences, is in `PACKAGE.copyright.txt` beside them: read it before
you hand pictures on. Where there is no apt-get, give a folder of your own by `data.calibration.path`.

Exit codes: 0 done, 2 a package can't be had, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from structprune.suites.command_line import Parser, names, note
from structprune.suites.debian_packages import fetch_all
from structprune.suites.photographs import PACKAGES, fetch
from structprune.user_folders import photographs_folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--packages", metavar="A,B", type=names, default=tuple(PACKAGES), help=", ".join(PACKAGES))
    parser.add_argument("--out", type=Path, default=photographs_folder(), help="the folder (the cache folder's)")
    options = parser.parse_args(arguments)
    fetch_all(options.packages, fetch, options.out, "pictures")
    note(f"{options.out} holds {len([*options.out.glob('*.jpg')])} pictures")


if __name__ == "__main__":
    main()
