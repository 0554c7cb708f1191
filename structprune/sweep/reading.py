"""Reads a sweep's file and checks the recipe of each of its runs, before any of them starts."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import RecipeError
from ..recipe import Recipe, check_recipe, read_yaml, recipe_data, set_key
from ..recipe.mistakes import AT_MOST, lines
from ..shipped_recipes import find_study
from ..user_code import Tell, once, to_stderr
from .arms import Arm, arms_of
from .specs import SweepSpec

_WHERE = "recipe"  # in messages about one arm's recipe, until its name takes this place


@dataclass(frozen=True)
class Run:
    """One arm with one seed: what `structprune run` does in a process."""

    arm: Arm
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """What the run's folder is called."""
        return f"{self.arm.name}-seed{self.seed}"


@dataclass(frozen=True)
class Sweep:
    """A sweep whose recipes have all been checked.

    Attributes:
        name: The name of its file.
        spec: What its file holds.
        base: The data of the recipe that all arms start from.
        arms: The arms, in order.
        runs: All runs: of each arm its seeds, so that runs that start at once share as little as they can.
    """

    name: str
    spec: SweepSpec
    base: dict[str, Any]
    arms: tuple[Arm, ...]
    runs: tuple[Run, ...]

    def to_data(self) -> dict[str, Any]:
        """All that decides what the runs are, as plain data."""
        arms = {arm.name: arm.settings for arm in self.arms}
        return {"recipe": self.base, "set": self.spec.set, "arms": arms, "seeds": list(self.spec.seeds)}

    def holds(self, data: Any) -> bool:
        """Whether all runs of another sweep, given by its `to_data`, are runs of this one too."""
        own = self.to_data()
        try:
            return (
                (data["recipe"], data["set"]) == (own["recipe"], own["set"])
                and all(name in own["arms"] and own["arms"][name] == value for name, value in data["arms"].items())
                and {*data["seeds"]} <= {*own["seeds"]}
            )
        except (TypeError, KeyError, AttributeError):  # a file that someone else wrote
            return False


def read_sweep(path: str | Path, tell: Tell = to_stderr) -> Sweep:
    """Reads a sweep's file and checks the recipe of each arm.

    Args:
        path: The path of a YAML file, or the name of a study that comes with the package.
        tell: Gets a line for each file of the user's that is run to check a recipe.

    Returns:
        The sweep.

    Raises:
        RecipeError: A line for each mistake of the file, or of the recipes with the arms that have it; ten at most.
    """
    path = find_study(path)
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds {type(data).__name__}, not a mapping of keys: see recipes/studies")
    try:
        spec = SweepSpec.model_validate(data)
    except ValidationError as error:
        raise RecipeError(*lines(error, str(path), SweepSpec)) from error
    try:
        arms = arms_of(spec)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    base_path, base = recipe_data(_base(spec.recipe, path.parent))
    recipes = _recipes(arms, spec, base, base_path.parent, str(path), once(tell))
    runs = tuple(
        Run(arm, seed, recipes[arm.name].model_copy(update={"seed": seed})) for arm in arms for seed in spec.seeds
    )
    return Sweep(path.stem, spec, base, tuple(arms), runs)


def _base(recipe: str, folder: Path) -> str | Path:
    """The recipe beside the sweep's file, if there is one, else as it is written."""
    beside = folder / recipe
    try:
        return beside if beside.is_file() else recipe
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return recipe


def _recipes(
    arms: list[Arm], spec: SweepSpec, base: dict[str, Any], folder: Path, where: str, tell: Tell
) -> dict[str, Recipe]:
    """The recipe of each arm by its name, with the first seed. Raises RecipeError with the mistakes of all."""
    recipes: dict[str, Recipe] = {}
    mistakes: dict[str, list[str]] = {}
    for arm in arms:
        try:
            recipes[arm.name] = check_recipe(_data(arm, spec, base), _WHERE, folder, tell)
        except RecipeError as error:
            for line in error.args:
                mistakes.setdefault(str(line).removeprefix(f"{_WHERE}: "), []).append(arm.name)
    if mistakes:
        texts = list(_lines(mistakes, len(arms), where))
        more = [f"{where}: and {len(texts) - AT_MOST} more mistakes"] if len(texts) > AT_MOST else []
        raise RecipeError(*texts[:AT_MOST], *more)
    return recipes


def _data(arm: Arm, spec: SweepSpec, base: dict[str, Any]) -> dict[str, Any]:
    """The data of an arm's recipe, with the first seed. Raises RecipeError where a key has no place in it."""
    data = copy.deepcopy(base)
    for key, value in [*spec.set.items(), *arm.settings.items(), ("seed", spec.seeds[0])]:
        try:
            set_key(data, key, copy.deepcopy(value))
        except ValueError as error:
            raise RecipeError(f"{key}: {error}") from error
    return data


def _lines(mistakes: dict[str, list[str]], count: int, where: str) -> Iterator[str]:
    """A line for each mistake, with the arms that have it."""
    for text, names in mistakes.items():
        if len(names) == count > 1:
            who = "all arms"
        elif len(names) > 3:
            who = f"arms {', '.join(names[:3])} and {len(names) - 3} more"
        else:
            who = ("arm " if len(names) == 1 else "arms ") + ", ".join(names)
        yield f"{where}: {who}: {text}"
