"""GReg-1 (Wang et al., ICLR 2021): a growing penalty drives units that are to go out of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...errors import RecipeError
from ...strict_specs import Number, Whole
from ..method import TRAINING_METHODS, MethodKind, Training, TrainingMethod
from ..planned_units import PlannedSpec, PlannedUnits

if TYPE_CHECKING:
    from torch import nn


class GregSpec(PlannedSpec):
    """Units that a plan removes at the start get an L2 penalty that grows; the run's plan then removes them."""

    method: Literal["greg"] = Field(default="greg", description="the method's name")
    step: Number = Field(default=1e-4, gt=0, description="δ: by how much the penalty grows")
    interval: Whole = Field(default=10, ge=1, description="K: after how many updates it grows")
    ceiling: Number = Field(default=1.0, gt=0, description="what the penalty does not exceed")


class Greg(TrainingMethod):
    """λ·w is added to the gradients of the filters of chosen units (algorithm 1, GReg-1).

    λ = min(ceiling, δ·(1 + ⌊updates / K⌋)). The units are chosen once, by a plan by the weights at the start; all
    coupled filters of a unit are pushed. The penalty reaches its ceiling after K·ceiling/δ updates: with fewer in all,
    choose a larger δ, or a smaller K.

    Usual errors: units chosen anew at each growth (that is another method); a penalty that starts at its ceiling, so
    that the others have no time to take over; an optimiser that divides gradients by their size (Adam), under which a
    larger λ pushes little harder: use sgd or momentum; `clip_grad`, which cuts the penalty with the gradients.
    """

    def __init__(self, spec: GregSpec) -> None:
        self.spec = spec
        self.updates = 0
        self.chosen: dict[str, list[int]] = {}

    def start(self, training: Training) -> None:
        self.units = PlannedUnits(training, self.spec)
        if not self.units.groups:
            raise RecipeError("method greg needs channels that can go, and there are none")
        self.chosen = self.units.removed()

    @property
    def penalty(self) -> float:
        """λ of the next update."""
        return min(self.spec.ceiling, self.spec.step * (1 + self.updates // self.spec.interval))

    def after_backward(self, model: nn.Module) -> None:
        import torch

        with torch.no_grad():
            for weight, places in self.units.filters(self.chosen):
                if weight.grad is not None:
                    weight.grad += self.penalty * weight * places
        self.updates += 1

    def state(self) -> Any:
        return [self.updates, self.chosen]

    def restore(self, state: Any) -> None:
        self.updates, self.chosen = state


TRAINING_METHODS.add(MethodKind("greg", "a growing penalty on units to go (Wang et al. 2021)", GregSpec, Greg))
