"""What a criterion gives for a group, made into one score a unit, or refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, RecipeError, StructPruneError
from ..memory_limits import allocation_failed
from ..messages import shown, unknown
from .registry import Criterion, Unscored
from .views import COMBINE, GroupView, broken_weights, combine, why_not_finite


def combination(criterion: Criterion, choice: str | None = None) -> str | None:
    """How coupled layers' scores are put together: as `choice` says, or else the criterion's own way.

    Raises RecipeError for an unknown one, and where the criterion scores a group as a whole.
    """
    if choice is not None and criterion.combine is None:
        raise RecipeError(_as_a_whole(criterion))
    how = criterion.combine if choice is None else choice
    if how is not None and not (isinstance(how, str) and how in COMBINE):
        raise RecipeError(unknown("way to combine", how, COMBINE))
    return how


def _as_a_whole(criterion: Criterion) -> str:
    return f"criterion {criterion.name} scores a group as a whole, so there is nothing to combine: leave combine out"


class Results:
    """The results of one criterion. `how` says how coupled layers are put together, and `combines` whether the user
    asked for that. `own` is whether the criterion is one of this package."""

    def __init__(self, criterion: Criterion, how: str | None = None, combines: bool = False) -> None:
        self.criterion, self.how, self.combines = criterion, how, combines
        self.own = str(getattr(criterion.function, "__module__", "")).startswith("structprune.")

    def call(self, view: GroupView) -> Any:
        try:
            with torch.no_grad():
                return self.criterion.function(view)
        except (StructPruneError, Unscored):
            raise
        except Exception as error:  # whatever a user's own function raises
            if self.own or allocation_failed(error):
                raise
            lines = str(error).strip().splitlines() or [""]
            raise RecipeError(
                f"criterion {self.criterion.name!r} failed on group {view.name}: {type(error).__name__}: {lines[0]}"
            ) from error

    def members(self, view: GroupView, result: Any) -> Tensor:
        """(members, units): one row where the criterion scored the group as a whole."""
        rows = list(result) if isinstance(result, (list, tuple)) else [result]
        if self.combines and not isinstance(result, (list, tuple)):
            raise RecipeError(_as_a_whole(self.criterion))
        scores = [self._row(view, row) for row in rows]
        for row in scores:
            if tuple(row.shape) != (view.units,):
                raise RecipeError(
                    f"criterion {self.criterion.name!r} gave shape {tuple(row.shape)} for group {view.name}, which has "
                    f"{view.units} units: return a tensor of shape ({view.units},)"
                )
        if not scores:
            raise ModelError(f"criterion {self.criterion.name!r} gave no scores for group {view.name}")
        return torch.stack(scores)

    def _row(self, view: GroupView, row: Any) -> Tensor:
        """What a criterion gave for one layer, as float64 on the CPU."""
        try:
            tensor = torch.as_tensor(row).detach()
            if tensor.is_complex():
                raise TypeError("complex numbers have no order")
            return tensor.double().cpu()
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise RecipeError(
                f"criterion {self.criterion.name!r} gave {shown(row)} for group {view.name}, which is not a tensor of "
                f"scores ({reason}): return real numbers of shape ({view.units},)"
            ) from error

    def whole(self, view: GroupView, result: Any) -> Any:
        return self.combined(view, self.members(view, result))

    def combined(self, view: GroupView, members: Tensor) -> Any:
        if self.criterion.finish is not None:
            members = self.criterion.finish(members)
        whole = combine(list(members), self.how or "leading") if len(members) > 1 else members[0]
        if whole.isnan().any() and not members.isnan().all() and not broken_weights(view):
            raise Unscored("only a part of its channels has what the criterion looks at")
        if not torch.isfinite(whole).all():
            raise ModelError(why_not_finite(self.criterion.name, view))
        return whole.numpy()
