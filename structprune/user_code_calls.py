"""Calls a user's own function or class, named in a recipe as `file.py:Name` or `package.module:Name`.

Enters the name and arguments, leaves the object, or one line about what went wrong. See `user_code` for how the name is
looked up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

from . import user_code
from .errors import RecipeError, StructPruneError
from .messages import shown
from .strict_specs import beside_recipe


def checked_name(source: str, info: ValidationInfo) -> str:
    """The name of code, relative to the current folder. Raises ValueError if there is no such code."""
    place, colon, name = source.rpartition(":")
    if colon and user_code.is_file_name(place):
        source = f"{beside_recipe(place, info)}:{name}"
    user_code.check(source)
    return source


# `file.py:Name`, relative to the recipe, or `package.module:Name`
CodeName = Annotated[str, AfterValidator(checked_name)]


def callable_of(source: str, key: str, tell: user_code.Tell | None) -> Callable[..., Any]:
    """Finds the function or class that `source` names.

    Args:
        source: `file.py:Name` or `package.module:Name`.
        key: where it stands in the recipe, for messages.
        tell: gets a line that says which file is run.

    Returns:
        The function or class itself.

    Raises:
        RecipeError: the name does not exist or can't be called.
    """
    with _importable(source):
        code: Any = user_code.find(source, tell)
    if not callable(code):
        raise RecipeError(f"{key}: {source} is {shown(code)}: name a function or a class")
    return code


def code_named(source: str) -> list[str]:
    """Reads the code that a name in a recipe refers to, on which all that is made by it depends.

    Returns the texts of its files; nothing for a registered name, which has no colon.
    """
    if ":" not in source:
        return []
    files = user_code.files_of(source)
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file()]
    return texts or [user_code.code_of(user_code.split(source)[0])]


def made_by(source: str, key: str, kwargs: dict[str, Any], tell: user_code.Tell) -> Any:
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
    code = callable_of(source, key, tell)
    with _importable(source):
        try:
            return code(**kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's code raises
            raise RecipeError(f"{key}: {source} failed: {reason(error)}") from error


def _importable(source: str) -> AbstractContextManager[None]:
    place, _ = user_code.split(source)
    return user_code.importable(Path(place)) if user_code.is_file_name(place) else contextlib.nullcontext()


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
