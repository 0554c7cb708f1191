"""Gradients whose norm is bounded (Pascanu et al. 2013), so that one batch does not throw the weights away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...strict_specs import Number
from ..method import TRAINING_METHODS, MethodKind, MethodSpec, TrainingMethod

if TYPE_CHECKING:
    from torch import nn


class ClipSpec(MethodSpec):
    """The norm of all gradients together is at most `norm`."""

    method: Literal["clip"] = Field(default="clip", description="the method's name")
    norm: Number = Field(default=1.0, gt=0, description="the largest norm of all gradients together")


class Clip(TrainingMethod):
    """Scales gradients down to a norm."""

    def __init__(self, norm: float) -> None:
        self.norm = norm

    def after_backward(self, model: nn.Module) -> None:
        from torch.nn.utils import clip_grad_norm_

        clip_grad_norm_(model.parameters(), self.norm)


TRAINING_METHODS.add(
    MethodKind("clip", "gradients of bounded norm (Pascanu et al. 2013)", ClipSpec, lambda spec: Clip(spec.norm))
)
