"""Recipes by name: those that come with the package, in a wheel inside of it, in a clone in recipes/ beside it."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from .errors import RecipeError
from .names import shown

_INSIDE = Path(__file__).parent / "recipes"
_BESIDE = Path(__file__).parent.parent / "recipes"


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by their names."""
    beside = _BESIDE if (_BESIDE.parent / "pyproject.toml").is_file() else None
    folder = _INSIDE if _INSIDE.is_dir() else beside
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder is not None else {}


def is_name(given: str) -> bool:
    """Whether this could only be the name of a recipe: it has no folder and no suffix."""
    return bool(given) and given == os.path.basename(given) and not given.endswith((".yaml", ".yml"))


def find_recipe(given: str | Path) -> Path:
    """The file that is meant: a path if there is a file, else a recipe that comes with the package, by its name.

    Args:
        given: As a user typed it.

    Returns:
        A path; that there is a file is not checked where `given` is no name.

    Raises:
        RecipeError: For a name that no recipe has.
    """
    path, name = Path(given), str(given)
    try:
        if not is_name(name) or path.is_file():
            return path
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return path
    known = shipped()
    if name in known:
        return known[name]
    if path.is_dir():
        return path
    near = difflib.get_close_matches(name, known, 3, 0.5) if len(name) < 200 else []
    hint = f": did you mean {' or '.join(near)}?" if near else "."
    raise RecipeError(
        f"no recipe at {shown(name)}, and none of that name{hint} Known: {', '.join(known) or 'none'}; or give the "
        "path of a YAML file"
    )
