"""Group lasso over coupled filters (Wen et al., NeurIPS 2016): whole units are driven to exactly zero."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...errors import RecipeError
from ...strict_specs import Number
from ..method import TRAINING_METHODS, MethodKind, MethodSpec, Training, TrainingMethod

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..coupled import CoupledUnits


class GroupLassoSpec(MethodSpec):
    """λ·√n·‖w‖₂ is taken off for each unit, w being its n weights in all coupled filters."""

    method: Literal["group_lasso"] = Field(default="group_lasso", description="the method's name")
    strength: Number = Field(default=1e-4, gt=0, description="λ, per weight")


class GroupLasso(TrainingMethod):
    """The proximal step of λ·Σ√n·‖w‖₂ (Wen et al., equation 3; the weighting √n of Yuan & Lin 2006).

    After each update w ← w·max(0, 1 - η·λ·√n / ‖w‖₂), η being the learning rate, over all coupled filters of a unit
    at once. `criterion: l2` or `group_l2` then ranks by what is left.

    Usual errors: the penalty as a term of the loss, whose subgradient leaves nothing exactly zero; a norm of each
    layer's filter by itself where filters are coupled, so that no whole unit goes.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.groups: list[CoupledUnits] = []
        self.weights: list[float] = []

    def start(self, training: Training) -> None:
        from ..coupled import coupled_units, trace_trained

        self.groups = coupled_units(training.model, trace_trained(training.model, training.example))
        if not self.groups:
            raise RecipeError("method group_lasso needs channels that can go, and there are none")
        self.weights = [math.sqrt(group.elements()) for group in self.groups]
        self.optimizer: torch.optim.Optimizer = training.optimizer

    def after_step(self, model: nn.Module) -> None:
        import torch

        lr = float(self.optimizer.param_groups[0]["lr"])
        with torch.no_grad():
            for group, weight in zip(self.groups, self.weights, strict=True):
                sizes = group.squares().sqrt()
                share = (1 - lr * self.strength * weight / sizes.clamp_min(1e-30)).clamp_min(0)
                for part in group.parts:
                    if part.role in ("filter", "passed"):
                        part.parameter.mul_(part.spread(share - 1) + 1)  # positions of no unit stay as they are


TRAINING_METHODS.add(
    MethodKind(
        "group_lasso",
        "coupled filters driven to zero (Wen et al. 2016)",
        GroupLassoSpec,
        lambda spec: GroupLasso(spec.strength),
    )
)
