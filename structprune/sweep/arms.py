"""The arms that a sweep's grids and named arms come to: plain data, before any recipe is checked."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import RecipeError
from ..messages import unknown
from .specs import MOST_RUNS, Axis, Settings, SweepSpec


@dataclass(frozen=True)
class Arm:
    """A recipe with some keys changed.

    Attributes:
        name: What tables and folders call it.
        labels: Of each axis of its grid, the label of its value; none for an arm that is given by name.
        settings: What it changes: values by dotted keys, in the order in which they are set.
    """

    name: str
    labels: dict[str, str]
    settings: Settings


def arms_of(spec: SweepSpec) -> list[Arm]:
    """Makes the arms of a sweep: each combination of a grid, then those that are given by name.

    Args:
        spec: The sweep.

    Returns:
        The arms, each with a name of its own.

    Raises:
        RecipeError: There are too many, two have the same name, an axis undoes what another one sets, or a reference is
            none of them.
    """
    count = sum(math.prod(map(len, axes.values())) for axes in spec.grid if axes) + len(spec.arms)
    if (runs := count * len(spec.seeds)) > MOST_RUNS:
        raise RecipeError(f"{runs:,} runs are over the limit of {MOST_RUNS:,}: give fewer values, or fewer seeds")
    arms = [arm for axes in spec.grid for arm in _combinations(axes)]
    arms += [Arm(name, {}, settings) for name, settings in spec.arms.items()]
    names: set[str] = set()
    for arm in arms:
        if arm.name.casefold() in names:  # in one case: some file systems do not tell them apart
            raise RecipeError(f"two arms would be called {arm.name}: name the values of an axis, or the arm, otherwise")
        names.add(arm.name.casefold())
    known = [arm.name for arm in arms] + [label for arm in arms for label in arm.labels.values()]
    for reference in spec.reference:
        if reference not in known:
            raise RecipeError(f"reference: {unknown('arm', reference, {*known})}")
    return arms


def _combinations(axes: dict[str, Axis]) -> Iterator[Arm]:
    if not axes:
        return
    for choices in itertools.product(*(_choices(key, values) for key, values in axes.items())):
        labels = dict(zip(axes, (label for label, _ in choices), strict=True))
        settings: Settings = {}
        for axis, (_, own) in zip(axes, choices, strict=True):
            for key, value in own.items():
                _check_undone(axis, key, settings)
                settings[key] = value
        yield Arm("+".join(labels.values()), labels, settings)


def _check_undone(axis: str, key: str, settings: Settings) -> None:
    """Raises RecipeError if setting a key would undo what an axis before this one has set."""
    undone = next((other for other in settings if other == key or other.startswith(f"{key}.")), None)
    if undone is not None:
        raise RecipeError(
            f"grid: {axis} sets {key} and undoes {undone} of an axis before it: let each axis set keys of its own"
        )


def _choices(key: str, values: Axis) -> list[tuple[str, Settings]]:
    if isinstance(values, dict):
        return list(values.items())
    return [(_label(key, value), {key: value}) for value in values]


def _label(key: str, value: Any) -> str:
    """What a value is called: text as it is, anything else with the last part of its key."""
    if isinstance(value, str) and value:
        return re.sub(r"[^A-Za-z0-9_.=,-]+", "-", value).strip("-") or "text"
    text = "none" if value is None else str(value).lower()
    return f"{key.rpartition('.')[2]}={text}"
