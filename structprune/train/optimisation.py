"""timm's optimisers and learning rate schedules, and the bound of gradients, as a recipe names them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import RecipeError
from ..user_code_calls import in_one_line
from .method import TrainingMethod
from .spec import TrainSpec


def make_optimizer(model: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    """timm's optimiser over the trainable parameters; biases and norms are not decayed.

    Raises RecipeError for arguments that the optimiser does not take.
    """
    from timm.optim import create_optimizer_v2

    options: dict[str, Any] = {"lr": spec.lr, "weight_decay": spec.weight_decay, "momentum": spec.momentum}
    if spec.layer_decay is not None:
        options["layer_decay"] = spec.layer_decay
    with in_one_line(RecipeError, f"opt={spec.opt} with opt_kwargs={spec.opt_kwargs} can't be made"):
        return create_optimizer_v2(model, opt=spec.opt, **options, **spec.opt_kwargs)


def make_schedule(optimizer: torch.optim.Optimizer, spec: TrainSpec, updates: int) -> Any:
    """timm's schedule, moved by updates, of which an epoch has `updates`.

    Raises RecipeError for a schedule that does not fit into the epochs.
    """
    from timm.scheduler import create_scheduler_v2

    low = spec.lr / 100
    with in_one_line(RecipeError, f"sched={spec.sched} does not fit epochs={spec.epochs}"):
        schedule, _ = create_scheduler_v2(
            optimizer,
            sched=spec.sched,
            num_epochs=spec.epochs,
            warmup_epochs=spec.warmup_epochs,
            warmup_lr=low if spec.warmup_lr is None else spec.warmup_lr,
            min_lr=low if spec.min_lr is None else spec.min_lr,
            decay_epochs=spec.decay_epochs,
            decay_milestones=list(spec.decay_milestones),
            decay_rate=spec.decay_rate,
            step_on_epochs=False,
            updates_per_epoch=updates,
        )
    return schedule


class ClippedGradients(TrainingMethod):
    """Gradients that are bounded (Pascanu et al. 2013), so that one batch does not throw the weights away.

    By their norm, by their values, or each by the norm of its weights (Brock et al. 2021, adaptive clipping).
    """

    def __init__(self, bound: float, mode: str) -> None:
        self.bound, self.mode = bound, mode

    def after_backward(self, model: nn.Module) -> None:
        from timm.utils import dispatch_clip_grad

        dispatch_clip_grad(list(model.parameters()), self.bound, mode=self.mode)
