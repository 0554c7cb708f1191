"""torch-pruning's group-norm regularisation (DepGraph, Fang et al. 2023) as a training method."""

from __future__ import annotations

from typing import Any

import torch_pruning as tp
from torch import nn

from structprune.train.method import Training, TrainingMethod


class GroupNorm(TrainingMethod):
    """Adds to gradients what the GroupNormPruner of torch-pruning adds, as the training loop of its benchmark does.

    Args:
        strength: Its `reg`, λ: of each group, the largest channels are pulled by λ and the smallest by 16 λ.
    """

    def __init__(self, strength: float = 5e-4) -> None:
        self.strength = strength

    def start(self, training: Training) -> None:
        example: Any = training.example.args[0]
        last = [module for module in training.model.modules() if isinstance(module, nn.Linear)][-1]
        self.pruner = tp.pruner.GroupNormPruner(
            training.model, example, tp.importance.GroupMagnitudeImportance(p=2), reg=self.strength,
            ignored_layers=[last], in_channel_groups={}, out_channel_groups={},
        )  # fmt: skip

    def after_backward(self, model: nn.Module) -> None:
        self.pruner.regularize(model)
