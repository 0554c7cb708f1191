"""Reads the folders of finished runs that are to be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import RecipeError
from ..json_records import read_record
from ..recipe import read_yaml
from ..records import Plan
from ..report import Report
from ..report.run_facts import RunFacts, facts_of


class FinishedRun(NamedTuple):
    """What the folder of a run holds.

    Attributes:
        name: What it is called beside the others.
        folder: Where it is.
        report: What it came to.
        plan: Which channels stay; None where the folder has none.
        recipe: What was asked for, by dotted keys; empty where the folder has none.
        facts: When it was made, and what else its log tells.
    """

    name: str
    folder: Path
    report: Report
    plan: Plan | None
    recipe: dict[str, Any]
    facts: RunFacts


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """Reads the runs in several folders.

    Args:
        folders: Two or more.

    Returns:
        The runs, in order.

    Raises:
        RecipeError: There are fewer than two, one comes twice, or one is not a finished run.
        StoreError: A report is damaged.
        PlanError: A plan is.
    """
    if len(folders) < 2:
        raise RecipeError("one run has nothing to be compared with: give the folders of two finished runs or more")
    places: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            what = "a file" if folder.is_file() else "not there"
            raise RecipeError(
                f"{folder} is {what}, where the folder of a finished run is wanted, such as runs/quickstart: give "
                "folders of runs alone, or one recipe to compare it with torch-pruning"
            )
        if not (folder / "report.json").is_file():
            raise RecipeError(f"{folder} is not a finished run: it has no report.json. {_what_to_do(folder)}")
        first = places.setdefault(folder.resolve(), folder)
        if first is not folder:
            raise RecipeError(f"{folder} and {first} are the same run: give each folder once")
    return [_read(folder, name) for folder, name in zip(folders, _names([*places]), strict=True)]


def _what_to_do(folder: Path) -> str:
    if (folder / "compare.json").is_file():
        return f"It is a comparison with torch-pruning; the run in it is {folder / 'structprune'}"
    if (folder / "compare_runs.json").is_file():
        return "It is a comparison of runs: leave it out"
    if (folder / "recipe.yaml").is_file():
        return f"Go on with it first: structprune run --resume --out {folder}, with its recipe"
    inside = sorted(path.parent for path in folder.glob("*/report.json"))
    if inside:
        return f"Give the folders in it: {', '.join(map(str, inside[:4]))}{', …' if len(inside) > 4 else ''}"
    return "Give a folder that `structprune run` has filled"


def _read(folder: Path, name: str) -> FinishedRun:
    plan = Plan.read(folder / "plan.json") if (folder / "plan.json").is_file() else None
    recipe = read_yaml(folder / "recipe.yaml") if (folder / "recipe.yaml").is_file() else {}
    report = read_record(folder / "report.json", Report)
    return FinishedRun(name, folder, report, plan, flat(recipe), facts_of(folder))


def _names(paths: Sequence[Path]) -> list[str]:
    """The last names of paths, as many as tell them apart."""
    for count in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def flat(data: Any, place: str = "") -> dict[str, Any]:
    """The values of nested mappings by dotted keys.

    Args:
        data: Plain data.
        place: The key that it stands under.

    Returns:
        A value for each key; lists stay whole.
    """
    if not isinstance(data, dict) or not data:
        return {place: data} if place else {}
    values: dict[str, Any] = {}
    for key, value in data.items():
        values |= flat(value, f"{place}.{key}" if place else str(key))
    return values
