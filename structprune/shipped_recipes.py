"""The recipes that come with the package, by name: in a wheel inside it, in a clone in recipes/ beside it."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from .errors import RecipeError
from .messages import shown

INSTALLED = Path(__file__).parent / "recipes"
_BESIDE = Path(__file__).parent.parent / "recipes"


def shipped(folder: str = "") -> dict[str, Path]:
    """The recipes that come with the package, or the sweeps in their folder `studies`, by their names."""
    beside = _BESIDE if (_BESIDE.parent / "pyproject.toml").is_file() else None
    place = INSTALLED if INSTALLED.is_dir() else beside
    return {path.stem: path for path in sorted((place / folder).glob("*.yaml"))} if place is not None else {}


def is_name(text: str) -> bool:
    """Whether this could only be the name of a recipe: it has no folder and no suffix."""
    return bool(text) and text == os.path.basename(text) and not text.endswith((".yaml", ".yml"))


def find_recipe(recipe: str | Path) -> Path:
    """Finds a recipe: a file at this path or, if there is none, a recipe of this name that comes with the package.

    Args:
        recipe: A path or a name, as a user typed it.

    Returns:
        A path. If `recipe` can't be a name, whether the file exists is not checked.

    Raises:
        RecipeError: No recipe has this name.
    """
    return _found(recipe, "recipe", shipped())


def find_study(study: str | Path) -> Path:
    """Finds a sweep: a file at this path or, if there is none, a study of this name that comes with the package.

    Args:
        study: A path or a name, as a user typed it.

    Returns:
        A path. If `study` can't be a name, whether the file exists is not checked.

    Raises:
        RecipeError: No study has this name.
    """
    return _found(study, "sweep", shipped("studies"))


def _found(place: str | Path, kind: str, known: dict[str, Path]) -> Path:
    path, name = Path(place), str(place)
    try:
        if not is_name(name) or path.is_file():
            return path
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return path
    if name in known:
        return known[name]
    if path.is_dir():
        return path
    near = difflib.get_close_matches(name, known, 3, 0.5) if len(name) < 200 else []
    hint = f": did you mean {' or '.join(near)}?" if near else "."
    raise RecipeError(
        f"no {kind} at {shown(name)}, and none of that name{hint} Known: {', '.join(known) or 'none'}; or give the "
        "path of a YAML file"
    )
