"""Fonts of the user's, to render text in."""

from __future__ import annotations

from pathlib import Path

from ..errors import RecipeError
from . import styles

SUFFIXES = (".otf", ".ttf")
_NEEDED = frozenset(range(ord("!"), ord("~") + 1))  # letters, digits and signs of ASCII
_KEPT_APART = frozenset((*styles.CHOICE.fonts, *styles.HELD_OUT.fonts))


def fonts_in(folder: Path) -> tuple[str, ...]:
    """Finds the fonts of a folder that have all letters, digits and signs of ASCII.

    Those that quality is measured in are left out, by their names.

    Args:
        folder: Is searched with the folders inside.

    Returns:
        Paths, sorted; at least one.

    Raises:
        RecipeError: There is none.
    """
    if not folder.is_dir():
        raise RecipeError(f"data.fonts: {folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise RecipeError(f"data.fonts: {folder} holds no fonts ({', '.join(SUFFIXES)}): give a folder that does")
    fonts = tuple(str(path.resolve()) for path in files if path.name not in _KEPT_APART and is_complete(path))
    if not fonts:
        raise RecipeError(
            f"data.fonts: of the {len(files)} fonts in {folder}, none has all letters, digits and signs of ASCII "
            "without being one of those that quality is measured in: give other fonts"
        )
    return fonts


def is_complete(path: Path) -> bool:
    """Whether a file is a font with all letters, digits and signs of ASCII."""
    from fontTools.ttLib import TTFont  # of matplotlib, which text is rendered with

    try:
        with path.open("rb") as file, TTFont(file, lazy=True) as font:
            return font.getBestCmap().keys() >= _NEEDED
    except Exception:  # what is no font raises whatever the bytes lead to
        return False
