"""What a sweep's file may hold: a recipe, and the arms that it is run in.

An arm is the recipe with some of its keys changed, run once for each seed. Nothing here imports torch.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ..messages import shown
from ..strict_specs import Number, Strict, Whole

MOST_RUNS = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=,-]{0,79}")
Settings = dict[str, Any]  # values by dotted keys, as `--set` takes them
Axis = list[Any] | dict[str, Settings]  # values of the key that the axis is called, or settings by their name


def _keys(settings: Settings) -> Settings:
    """Checks dotted keys of a recipe. Whether the recipe has them is checked with each arm."""
    for key in settings:
        if not all(key.split(".")):
            raise ValueError(f"{shown(key)} is not a key of a recipe: write it as prune.budget.macs")
        if key == "seed":
            raise ValueError("seed is what an arm's runs differ by: give seeds beside it")
    return settings


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{shown(name)} can't be a name, as folders are called by it: use at most 80 letters, digits and _.=,-"
        )
    return name


def _axis(values: Any) -> Any:
    if not isinstance(values, (list, dict)):
        raise ValueError(f"{shown(values)} is one value: give a list of them, or {{NAME: {{key: value, …}}, …}}")
    if not values:
        raise ValueError("has no values: give one at least, or leave the axis out")
    if isinstance(values, dict):
        return values
    for value in values:
        if isinstance(value, (list, dict)):
            raise ValueError(
                f"{shown(value)} has no short name for a table: name it, as {{NAME: {{key: value, …}}, …}} in place of "
                "the list"
            )
    if len({repr(value) for value in values}) < len(values):
        raise ValueError(f"{shown(values)} has a value twice")
    return values


KeyedSettings = Annotated[Settings, AfterValidator(_keys)]
Name = Annotated[str, AfterValidator(_name)]
Values = Annotated[list[Any] | dict[Name, KeyedSettings], BeforeValidator(_axis)]


def _as_list(value: Any) -> Any:
    """Takes one for a list of one."""
    return value if isinstance(value, (list, tuple)) else [value]


def _as_seeds(value: Any) -> Any:
    """Takes a number of seeds for the seeds from 0."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if not 1 <= value <= MOST_RUNS:
        raise ValueError(f"{value:,} seeds: give 1 to {MOST_RUNS:,}, or a list of seeds")
    return list(range(value))


class SweepSpec(Strict):
    """A recipe, and what is tried with it.

    Keys are a recipe's, their parts separated by dots, as `--set` takes them.
    """

    recipe: str = Field(
        description="what all arms start from: the path of a recipe, relative to this file if it is there, or the name "
        "of one that comes with the package"
    )
    set: KeyedSettings = Field(default={}, description="keys of the recipe that are changed in all arms")
    grid: Annotated[tuple[dict[str, Values], ...], BeforeValidator(_as_list)] = Field(
        default=(),
        description="axes, each combination of which is an arm: `key: [values]`, or "
        "`axis: {name: {key: value, …}, …}`, which sets several keys at once; or a list of such grids",
    )
    arms: dict[Name, KeyedSettings] = Field(
        default={}, description="further arms, `name: {key: value, …}`, that are not combined with others"
    )
    seeds: Annotated[tuple[Whole, ...], BeforeValidator(_as_seeds)] = Field(
        default=(0,), description="seeds, each arm being run with each of them: a list, or how many, from 0"
    )

    reference: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        default=(),
        description="arms that the others are compared with, by name or by a label of an axis; by default each is "
        "compared with each",
    )

    timing_seconds: Number = Field(
        default=5.0,
        ge=0,
        description="how long the networks of each arm are timed beside the dense one in the end, when no run is at "
        "work; 0 takes the timing of each run as it is",
    )

    @field_validator("grid")
    @classmethod
    def _axes(cls, grids: tuple[dict[str, Values], ...]) -> tuple[dict[str, Values], ...]:
        for axes in grids:
            for key, values in axes.items():
                _keys({key: values}) if isinstance(values, list) else _name(key)
        return grids

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("there is no seed: give one at least")
        if min(seeds) < 0 or max(seeds) > 2**31:
            raise ValueError(f"{shown(list(seeds))}: a seed is a number of 0 to {2**31:,}")
        if len({*seeds}) < len(seeds):
            raise ValueError(f"{shown(list(seeds))} has a seed twice")
        return seeds

    @model_validator(mode="after")
    def _any(self) -> SweepSpec:
        if not any(self.grid) and not self.arms:
            raise ValueError("there is nothing to try: give a grid, or arms")
        return self
