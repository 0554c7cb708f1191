"""Network slimming (Liu et al., ICCV 2017): BatchNorm scales are pushed to zero while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...errors import RecipeError
from ...strict_specs import Number
from ..method import TRAINING_METHODS, MethodKind, MethodSpec, Training, TrainingMethod

if TYPE_CHECKING:
    from torch import nn

    from ..coupled import CoupledUnits


class SlimmingSpec(MethodSpec):
    """λ·sign(γ) is added to the gradients of BatchNorm scales; `criterion: slimming` then ranks by them."""

    method: Literal["slimming"] = Field(default="slimming", description="the method's name")
    strength: Number = Field(default=1e-4, gt=0, description="λ: 1e-4 for a VGG, 1e-5 for ResNets and DenseNets")
    start: Number | None = Field(default=None, gt=0, description="what all scales are set to first; the paper: 0.5")


class Slimming(TrainingMethod):
    """The subgradient of λ·Σ|γ|, added after backward and before the update (section 3, and the authors' code).

    Where BatchNorms are coupled (a residual stream), a channel can go only if all of its scales are small: they are
    pushed as one, by λ·γ/‖γ‖₂ over the coupled scales of a channel, which for one BatchNorm is λ·sign(γ).

    Usual errors: the penalty on scales of channels that nothing can remove, which costs accuracy for nothing (left out
    here); coupled scales pushed apart; clipping after the penalty (put `slimming` into `methods`: clipping comes
    last, so choose `clip_grad` well above λ·√channels); fine-tuning with the penalty still on.
    """

    def __init__(self, strength: float, start: float | None) -> None:
        self.strength, self.scale = strength, start
        self.groups: list[CoupledUnits] = []

    def start(self, training: Training) -> None:
        import torch

        from ..coupled import coupled_scales, trace_trained

        self.groups = coupled_scales(training.model, trace_trained(training.model, training.example))
        if not self.groups:
            raise RecipeError("method slimming needs BatchNorms on channels that can go, and there are none")
        if self.scale is not None:
            with torch.no_grad():
                for group in self.groups:
                    for part in group.parts:
                        part.parameter.fill_(self.scale)

    def after_backward(self, model: nn.Module) -> None:
        import torch

        with torch.no_grad():
            for group in self.groups:
                sizes = group.squares(roles=("norm",)).sqrt()
                inverse = torch.where(sizes > 0, self.strength / sizes.clamp_min(1e-30), 0.0)
                for part in group.parts:
                    if part.parameter.grad is not None:
                        part.parameter.grad += part.spread(inverse) * part.parameter


TRAINING_METHODS.add(
    MethodKind(
        "slimming",
        "sparse BatchNorm scales (Liu et al. 2017)",
        SlimmingSpec,
        lambda spec: Slimming(spec.strength, spec.start),
    )
)
