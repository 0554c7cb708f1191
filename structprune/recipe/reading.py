"""Reads a recipe from a file, or from the data in one, in two steps.

First its text is checked: keys, types, values, names that come with the package. That does not import torch.
Then what takes torch, timm or an engine: whether they have what is named, and whether the parts fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .. import strict_yaml
from ..errors import RecipeError
from ..messages import files_like, shown
from ..shipped_recipes import find_recipe
from ..user_code import Tell, to_stderr
from .mistakes import lines, plain
from .specs import Recipe


def read_recipe(path: str | Path, overrides: Sequence[str] = (), tell: Tell = to_stderr) -> Recipe:
    """Reads a recipe and applies overrides of the form `a.b=value`.

    Args:
        path: The path of a YAML file, or the name of a recipe that comes with the package.
        overrides: Keys and values, as `--set` takes them.
        tell: Gets a line for each file of the user's that is run to check it: what a criterion or an allocation needs
            is known only then.

    Returns:
        The recipe.

    Raises:
        RecipeError: A line for each mistake, ten at most.
    """
    path, data = recipe_data(path, overrides)
    return check_recipe(data, str(path), path.parent, tell)


def check_recipe(
    data: dict[str, Any], where: str = "recipe", folder: Path | None = None, tell: Tell = to_stderr
) -> Recipe:
    """Checks the data of a recipe.

    Args:
        data: The content of its file.
        where: Its name in messages.
        folder: The folder of its file. Paths that exist there are relative to it, others to the current folder.
        tell: As `read_recipe` takes it.

    Returns:
        The recipe.

    Raises:
        RecipeError: A line for each mistake, ten at most.
    """
    _checked(data, where, folder, only_read=True)
    return _checked(data, where, folder, only_read=False, tell=tell)


def check_text(path: str | Path, overrides: Sequence[str] = ()) -> None:
    """Does the first step of `read_recipe` alone, for a command that imports torch before it reads the recipe.

    Args:
        path: The path of a YAML file, or the name of a recipe that comes with the package.
        overrides: Keys and values, as `--set` takes them.

    Raises:
        RecipeError: A line for each mistake, ten at most.
    """
    path, data = recipe_data(path, overrides)
    _checked(data, str(path), path.parent, only_read=True)


def _checked(
    data: dict[str, Any], where: str, folder: Path | None, only_read: bool, tell: Tell | None = None
) -> Recipe:
    try:
        return Recipe.model_validate(data, context={"folder": folder, "only_read": only_read, "tell": tell})
    except ValidationError as error:
        raise RecipeError(*lines(error, where)) from error


def read_yaml(path: Path) -> Any:
    """Reads the data in a YAML file (see `strict_yaml`).

    Args:
        path: The file.

    Returns:
        Mappings, lists, texts, numbers, booleans and None, as they are nested there.

    Raises:
        RecipeError: It can't be read, or is not YAML; in one line.
    """
    try:
        return strict_yaml.read(path)
    except OSError as error:
        raise RecipeError(f"{path} can't be read: {error}") from error
    except ValueError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error


def recipe_data(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Path, dict[str, Any]]:
    """Finds a recipe's file and reads it, without checking its keys.

    Args:
        path: The path of a YAML file, or the name of a recipe that comes with the package.
        overrides: Keys and values, as `--set` takes them.

    Returns:
        The file's path, and its data with the overrides applied.

    Raises:
        RecipeError: There is no such file, it is not YAML or not a mapping, or an override does not fit it.
    """
    path = find_recipe(path)
    try:
        is_file = path.is_file()
    except OSError as error:  # a name that is too long
        raise RecipeError(f"no recipe at {shown(str(path))}: {error.strerror}") from error
    if not is_file:
        near = files_like(path, "*.yaml")
        hint = f": did you mean one of {', '.join(near[:8])}?" if near else ""
        raise RecipeError(f"no recipe at {path}{hint}")
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds {type(data).__name__}, not a mapping of keys: see recipes/quickstart.yaml")
    for override in overrides:
        _override(data, override)
    return path, data


def set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Sets a key of a recipe's data. Mappings that are not there, or null, are made on the way.

    Args:
        data: The recipe's data, which is changed.
        key: The key, its parts separated by dots.
        value: The value.

    Raises:
        ValueError: A part of the key before the last is a value, which has no keys.
    """
    *parents, last = key.split(".")
    here = data
    for parent in parents:
        if here.get(parent) is None:
            here[parent] = {}
        here = here[parent]
        if not isinstance(here, dict):
            raise ValueError(f"{plain(parent)} is a value in this recipe and has no keys")
    here[last] = value


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip("."):
        raise RecipeError(f"--set {plain(override)}: give it as key=value, for example prune.budget.macs=0.5")
    try:
        value = strict_yaml.parse(text)
    except ValueError as error:
        raise RecipeError(f"--set {shown(override)}: {shown(text)} is not a YAML value: {error}") from error
    try:
        set_key(data, key, value)
    except ValueError as error:
        raise RecipeError(f"--set {plain(override)}: {error}") from error
