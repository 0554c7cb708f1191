"""Fonts out of Debian's packages, to render text in that calibrates and is trained on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from shutil import copyfile

from ..store import atomic_files
from ..text.fonts import SUFFIXES, is_complete
from .debian_packages import extracted, files_of, keep_notice

_NAMES = """
adf-accanthis adf-baskervald adf-berenis adf-gillius adf-romande adf-tribun adf-universalis adf-verana b612 cabin
cantarell comfortaa courier-prime croscore crosextra-caladea crosextra-carlito dosis dustin ebgaramond
ebgaramond-extra fanwood firacode freefont-ttf goudybookletter hack humor-sans inconsolata jetbrains-mono junicode
jura karla lato liberation lindenhill linuxlibertine lobster lobstertwo mononoki noto-mono open-sans oxygen play
prociono quicksand roboto-unhinted sil-andika sil-charis sil-gentium urw-base35 vollkorn yanone-kaffeesatz
"""
PACKAGES = tuple(f"fonts-{name}" for name in _NAMES.split())
_NO_LETTERS = ("keyboard", "dingbats", "d050000l", "standardsymbols", "initials")  # pictures in place of letters


def fetch(package: str, folder: Path) -> int:
    """Downloads a Debian package by apt-get and keeps its fonts that have all letters, digits and signs of ASCII.

    Args:
        package: The package's name.
        folder: Gets the fonts, and `PACKAGE.copyright.txt`, which says whose they are and under which licences; a name
            that is there is written anew.

    Returns:
        How many fonts it gave.

    Raises:
        StructPruneError: The clients are not installed, or the package can't be had.
    """
    count = 0
    with extracted(package, "name a folder of your own fonts in data.fonts") as content:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files_of(content):
            name = file.name.lower()
            if file.suffix.lower() in SUFFIXES and not any(word in name for word in _NO_LETTERS) and is_complete(file):
                atomic_files.write(folder / file.name, partial(copyfile, file))
                count += 1
        keep_notice(content, package, folder)
    return count
