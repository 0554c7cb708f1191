"""A running average of the weights (Polyak & Juditsky 1992; timm's ModelEmaV3), which is handed out in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from ..modules import skeleton_copy
from .method import Training, TrainingMethod

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3


class AveragedWeights(TrainingMethod):
    """w̄ ← d·w̄ + (1 - d)·w after each update, parameters and persistent buffers alike."""

    average: ModelEmaV3

    def __init__(self, decay: float, warmup: bool) -> None:
        self.decay, self.warmup, self.updates = decay, warmup, 0

    def start(self, training: Training) -> None:
        from timm.utils import ModelEmaV3

        bare = skeleton_copy(training.model)  # without the hooks of other methods
        self.average = ModelEmaV3(bare, decay=self.decay, use_warmup=self.warmup)

    def after_step(self, model: nn.Module) -> None:
        self.updates += 1
        self.average.update(model, step=self.updates)

    def finish(self, model: nn.Module) -> None:
        model.load_state_dict(self.average.module.state_dict())

    @contextmanager
    def standing_in(self, model: nn.Module) -> Iterator[None]:
        """Puts the average into `model`, and its own weights back at the end."""
        own = {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
        self.finish(model)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state(self) -> Any:
        return [self.updates, dict(self.average.module.state_dict())]

    def restore(self, state: Any) -> None:
        self.updates, weights = state
        self.average.module.load_state_dict(weights)
