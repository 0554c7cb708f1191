"""Calls a user's own function or class, named in a recipe as `file.py:Name` or `package.module:Name`.

Enters the name and arguments, leaves the object, or one line about what went wrong. See `usercode` for how the name is
looked up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

from . import usercode
from .errors import RecipeError, StructPruneError
from .names import shown
from .specs import beside_recipe


def _checked(source: str, info: ValidationInfo) -> str:
    place, colon, name = source.rpartition(":")
    if colon and usercode.is_file_name(place):
        source = f"{beside_recipe(place, info)}:{name}"
    usercode.check(source)
    return source


CodeName = Annotated[str, AfterValidator(_checked)]  # `file.py:Name`, relative to the recipe, or `package.module:Name`


def made_by(source: str, key: str, kwargs: dict[str, Any], tell: usercode.Tell) -> Any:
    """Calls the function or class that `source` names.

    Args:
        source: `file.py:Name` or `package.module:Name`.
        key: where it stands in the recipe, for messages.
        kwargs: its arguments.
        tell: gets a line that says which file is run.

    Returns:
        What it returns.

    Raises:
        RecipeError: the name does not exist or can't be called, or the user's code raises.
    """
    place, _ = usercode.split(source)
    with usercode.importable(Path(place)) if usercode.is_file_name(place) else contextlib.nullcontext():
        target = usercode.find(source, tell)
        if not callable(target):
            raise RecipeError(f"{key}: {source} is {shown(target)}: name a function or a class")
        try:
            return target(**kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's code raises
            raise RecipeError(f"{key}: {source} failed: {reason(error)}") from error


@contextlib.contextmanager
def in_one_line(kind: type[StructPruneError], what: str) -> Iterator[None]:
    """Turns what someone else's code raises within it into an error of this kind, which says what failed and why."""
    try:
        yield
    except StructPruneError:
        raise
    except Exception as error:
        raise kind(f"{what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Kind and first line of an error of someone else's code; for a loader's worker, of the error raised there."""
    lines = str(error).strip().splitlines()
    if lines and lines[0].startswith("Caught ") and any(line.startswith("Original Traceback") for line in lines):
        return lines[-1][:300]
    return type(error).__name__ + (f": {lines[0][:300]}" if lines else "")
