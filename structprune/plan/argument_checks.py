"""Checks of what `plan` is given: scores, a scan of losses, alignment, costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..argument_checks import Wrong, whole
from ..errors import BudgetError, PlanError
from ..graph import DependencyGraph
from ..messages import shown
from ..records import Scores, Sensitivity
from .allocations import Allocation


def align_option(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str) and value == "auto":
        return value
    try:
        return whole()(value)
    except Wrong:
        raise Wrong(
            "a whole number, the multiples of a runtime (structprune.cost.learn_multiples()) or 'auto'"
        ) from None


def cost_option(value: Any) -> Any:
    if not isinstance(getattr(value, "dense_ms", None), (int, float)) or not hasattr(value, "latency"):
        raise Wrong("what structprune.cost.learn_cost(graph) gives")
    return value


def check_needs(allocation: Allocation, scores: Scores, cost: Any) -> None:
    """Raises BudgetError where an allocation lacks what it needs."""
    scan = scores.sensitivity
    if "scan" in allocation.needs and scan is None:
        raise BudgetError(
            f"allocation {allocation.name} needs a scan: plan(..., sensitivity=structprune.sensitivity(...))"
        )
    if "scan" in allocation.needs and scan is not None and scores.values and not scan.losses:
        why = f": {scan.notes[0]}" if scan.notes else ""
        raise BudgetError(f"allocation {allocation.name} needs a scan, and this one has no losses{why}")
    if "cost" in allocation.needs and cost is None:
        raise BudgetError(
            f"allocation {allocation.name} needs costs: plan(..., cost=structprune.cost.learn_cost(graph))"
        )


def check_scores(graph: DependencyGraph, scores: Scores, allocation: Allocation) -> Scores:
    """The scores as float64 arrays, one for each group of the graph that is not `unscored`.

    Raises PlanError for groups that the graph does not have or that are missing, and for scores that are not finite
    real numbers; BudgetError for negative ones under an allocation that divides by their sum or mean.
    """
    units = {group.name: group.units for group in graph.groups}
    if not isinstance(scores.criterion, str) or not isinstance(scores.notes, list):
        raise PlanError("the scores have no criterion's name or no list of notes: make them by structprune.score")
    if scores.widths is not None and not isinstance(scores.widths, Mapping):
        raise PlanError(f"the scores have widths={shown(scores.widths)}: give how many units each group keeps, by name")
    if not isinstance(scores.values, Mapping) or not isinstance(scores.unscored, Mapping):
        raise PlanError("the scores hold no mapping of groups' names to arrays: make them by structprune.score")
    missing = [name for name in units if name not in scores.values and name not in scores.unscored]
    if missing:
        raise PlanError(f"the scores do not cover group {missing[0]}: score the graph that you plan for")
    strange = [name for name in (*scores.values, *scores.unscored) if name not in units]
    if strange:
        raise PlanError(f"the scores name group {shown(strange[0])}, which is not in this graph: score this graph")
    values = {name: _array(name, raw, units[name]) for name, raw in scores.values.items()}
    below = next((name for name, array in values.items() if (array < 0).any()), None)
    if below is not None and allocation.refuses_negative(scores):
        raise BudgetError(
            f"group {below} has a score of {values[below].min():.4g}, and allocation {allocation.name} weighs each "
            "score by the sum of its group's: give scores of at least 0, or take allocation uniform or threshold"
        )
    if scores.sensitivity is not None:
        _check_losses(units, scores.sensitivity)
    return dataclasses.replace(scores, values=values)


def _array(name: str, value: Any, units: int) -> np.ndarray:
    try:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        sound = array.dtype.kind in "fiub"
    except (TypeError, ValueError, RuntimeError):  # ragged lists, dtypes that NumPy has not
        sound = False
    if not sound:
        raise PlanError(f"the scores of group {name} are not real numbers ({shown(value)}): give a float array")
    if array.shape != (units,):
        raise PlanError(f"the scores of group {name} have shape {array.shape}, and it has {units} units")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise PlanError(
            f"the scores of group {name} hold NaN or infinite values, which have no order: give finite ones"
        )
    return array


def _check_losses(units: Mapping[str, int], scan: Sensitivity) -> None:
    for name, losses in scan.losses.items():
        if name not in units:
            raise PlanError(
                f"the sensitivity scan names group {shown(name)}, which is not in this graph: scan this graph"
            )
        sound = isinstance(losses, Mapping) and len(losses) > 0
        if not sound or not all(_is_loss(kept, loss, units[name]) for kept, loss in losses.items()):
            raise PlanError(
                f"the sensitivity scan has {shown(losses)} for group {name}: give a finite loss for each width"
            )


def _is_loss(kept: Any, loss: Any, units: int) -> bool:
    whole_number = isinstance(kept, (int, np.integer)) and not isinstance(kept, bool) and 0 <= int(kept) <= units
    return whole_number and isinstance(loss, (int, float, np.floating)) and math.isfinite(float(loss))
