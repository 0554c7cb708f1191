"""Polarisation (Zhuang et al., NeurIPS 2020): BatchNorm scales part into those near zero and those far from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...errors import RecipeError
from ...strict_specs import Number
from ..method import TRAINING_METHODS, MethodKind, MethodSpec, Training, TrainingMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..coupled import CoupledUnits


class PolarizationSpec(MethodSpec):
    """λ(t·‖γ‖₁ - ‖γ - mean γ‖₁) over BatchNorm scales is added; `criterion: slimming` then ranks by them."""

    method: Literal["polarization"] = Field(default="polarization", description="the method's name")
    strength: Number = Field(default=1e-4, gt=0, description="λ")
    sparsity: Number = Field(default=1.2, ge=0, description="t: the higher it is, the more scales end near zero")
    start: Number | None = Field(default=None, gt=0, description="what all scales are set to first; the paper: 0.5")
    ceiling: Number = Field(default=1.0, gt=0, description="what no scale exceeds; the paper: 1")


class Polarization(TrainingMethod):
    """The gradient of λ(t·‖γ‖₁ - ‖γ - mean γ‖₁), the mean being over all scales of all layers (equation 2).

    Where BatchNorms are coupled (a residual stream), each scale counts as the root of the mean square of the scales of
    its channel, which for one BatchNorm is |γ|: a channel goes to zero with all of its scales or with none.
    The second term pushes scales without bound, so that the paper keeps them within [0, 1]; here it is
    [-ceiling, ceiling], since a trained network has negative scales.

    Usual errors: a mean for each layer, so that every layer keeps the same share; the mean taken for a constant (its
    gradient counts); scales without a ceiling, which grow for t < 1; t = 0, with which few scales go to zero.
    """

    def __init__(self, spec: PolarizationSpec) -> None:
        self.spec = spec
        self.groups: list[CoupledUnits] = []

    def start(self, training: Training) -> None:
        import torch

        from ..coupled import coupled_scales, trace_trained

        self.groups = coupled_scales(training.model, trace_trained(training.model, training.example))
        if not self.groups:
            raise RecipeError("method polarization needs BatchNorms on channels that can go, and there are none")
        if self.spec.start is not None and self.spec.start > self.spec.ceiling:
            raise RecipeError(
                f"method polarization: start {self.spec.start:g} is above ceiling {self.spec.ceiling:g}: give a lower "
                "start or a higher ceiling"
            )
        with torch.no_grad():
            for parameter in self._scales():
                if self.spec.start is not None:
                    parameter.fill_(self.spec.start)
                elif (largest := float(parameter.abs().max())) > self.spec.ceiling:
                    raise RecipeError(
                        f"method polarization keeps BatchNorm scales within {self.spec.ceiling:g}, and the network has "
                        f"one of {largest:.4g}: give a higher ceiling, or start to set all of them"
                    )

    def _scales(self) -> list[nn.Parameter]:
        unique = {id(part.parameter): part.parameter for group in self.groups for part in group.parts}
        return list(unique.values())

    def penalty(self) -> Tensor:
        """λ(t·‖γ‖₁ - ‖γ - mean γ‖₁), with gradients."""
        import torch

        counts = torch.cat([_counts(group) for group in self.groups])
        squares = torch.cat([group.squares(roles=("norm",)) for group in self.groups])
        there = (counts > 0) & (squares > 0)  # the root has no gradient at zero
        counts, mean_squares, number = counts[there], squares[there] / counts[there], counts.sum()
        sizes = mean_squares.sqrt()
        mean = (counts * sizes).sum() / number
        zeros = (number - counts.sum()) * mean  # scales of exactly zero are as far from the mean as it is large
        spread = (counts * (sizes - mean).abs()).sum() + zeros
        return self.spec.strength * (self.spec.sparsity * (counts * sizes).sum() - spread)

    def after_backward(self, model: nn.Module) -> None:
        import torch

        trained = [parameter for parameter in self._scales() if parameter.requires_grad]
        if not trained:
            return
        with torch.enable_grad():
            gradients = torch.autograd.grad(self.penalty(), trained)
        for parameter, gradient in zip(trained, gradients, strict=True):
            if parameter.grad is not None:
                parameter.grad += gradient

    def after_step(self, model: nn.Module) -> None:
        import torch

        with torch.no_grad():
            for parameter in self._scales():
                parameter.clamp_(-self.spec.ceiling, self.spec.ceiling)


def _counts(group: CoupledUnits) -> Tensor:
    """How many scales each unit has: (units,)."""
    import torch

    return torch.stack([part.sums(torch.ones_like(part.parameter)) for part in group.parts]).sum(0)


TRAINING_METHODS.add(
    MethodKind(
        "polarization",
        "BatchNorm scales parted into small and large (Zhuang et al. 2020)",
        PolarizationSpec,
        Polarization,
    )
)
