"""Bounds of quality: what of two measurements they are about, and whether they are met."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import RecipeError
from ..quality_judge import Quality
from ..recipe import Recipe
from ..report.records import Bound
from ..tasks import Task

ROUNDING = 1e-9  # what sums of floats may add to a drop


def check_bounds(recipe: Recipe, task: Task) -> None:
    """Raises RecipeError where a task can't tell what a bound asks for."""
    names = [metric.name for metric in task.likeness()]
    if "agreement" in recipe.prune.budget.bounds and "agreement" not in names:
        raise RecipeError(
            f"budget.agreement: task {task.name} measures no agreement with the dense network, but "
            f"{', '.join(names) or 'nothing of the kind'}: bound quality_drop instead"
        )


def found_beside(dense: Quality, quality: Quality, bounds: Mapping[str, float]) -> dict[str, float]:
    """The drop from the dense network and the agreement with it, as far as they are bounded, by name."""
    measures = {"quality_drop": quality.drop_from(dense), "agreement": quality.likeness.get("agreement", 0.0)}
    return {name: measures[name] for name in bounds}


def is_met(name: str, value: float, bound: float) -> bool:
    return value <= bound + ROUNDING if name == "quality_drop" else value >= bound - ROUNDING


def bounds_record(
    bounds: Mapping[str, float], validation: tuple[Quality, Quality], held_out: tuple[Quality, Quality]
) -> list[Bound]:
    """What report.json says of each bound: it is met where the held-out data says so, by which nothing was chosen.

    Args:
        bounds: what was asked, by name.
        validation: the quality of the dense and of the final network on the split that the budget was chosen by.
        held_out: the same on the held-out split.
    """
    chosen_by, measures = found_beside(*validation, bounds), found_beside(*held_out, bounds)
    return [
        Bound(
            name=name,
            asked=bound,
            validation=chosen_by[name],
            held_out=measures[name],
            met=is_met(name, measures[name], bound),
        )
        for name, bound in bounds.items()
    ]
