"""Mixed samples and smoothed labels: timm's mixup (Zhang et al. 2018), cutmix (Yun et al. 2019), smoothing.

Without labels the images alone are mixed, and `distill` asks the dense network what they are: far more different inputs
than there are images (Beyer et al., Knowledge distillation: A good teacher is patient and consistent, CVPR 2022).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..calibration import Batch
from ..errors import RecipeError
from ..modules import evaluating
from ..ops import Inputs
from .method import Training, TrainingMethod
from .spec import TrainSpec

if TYPE_CHECKING:
    from timm.data import Mixup


class MixedSamples(TrainingMethod):
    """Turns class numbers into shares of classes, and mixes pairs of images where the recipe says so."""

    def __init__(self, spec: TrainSpec) -> None:
        self.spec, self.epoch = spec, 0
        self.keys = ", ".join(key for key in ("smoothing", "mixup", "cutmix") if getattr(spec, key))
        self.mixup: Mixup | None = None
        self.classes = 0

    def start(self, training: Training) -> None:
        from timm.data import Mixup

        example, model = training.example, training.model
        with evaluating(model):
            classes = training.task.classes_scored(example.beside(model).call(model))
        if classes is None:
            raise RecipeError(f"{self.keys}: task {training.task.name} has no classes to mix: leave it out")
        self.classes, spec = classes, self.spec
        if spec.mixes:
            _image(example, self.keys)
            self.mixup = Mixup(
                mixup_alpha=spec.mixup,
                cutmix_alpha=spec.cutmix,
                prob=spec.mixup_prob,
                switch_prob=spec.mixup_switch_prob,
                mode=spec.mixup_mode,
                label_smoothing=spec.smoothing,
                num_classes=classes,
            )

    def mix(self, batch: Batch) -> Batch:
        labels = batch.labels
        if labels is None and not self.spec.smoothing:
            return self._without_labels(batch)
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dim() != 1:
            raise RecipeError(f"{self.keys} needs one class number a sample as label: leave it out")
        if self._rests(len(labels)):
            return Batch(batch.inputs, F.one_hot(labels, self.classes) * (1 - self.spec.smoothing) + self._even)
        mixed, shares = self._mixed(_image(batch.inputs, self.keys), labels)
        return Batch(Inputs((mixed,), {}), shares)

    def _without_labels(self, batch: Batch) -> Batch:
        image = _image(batch.inputs, self.keys)
        if self._rests(len(image)):
            return batch
        mixed, _ = self._mixed(image, image.new_zeros(len(image), dtype=torch.long))
        return replace(batch, inputs=Inputs((mixed,), {}))

    def _rests(self, samples: int) -> bool:
        """Whether this batch is not mixed."""
        return self.mixup is None or samples % 2 == 1 or 0 < self.spec.mixup_off_epoch <= self.epoch

    def _mixed(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        assert self.mixup is not None
        mixed, shares = self.mixup(image.clone(), labels)  # which it writes to
        return mixed, shares

    @property
    def _even(self) -> float:
        return self.spec.smoothing / self.classes

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        self.epoch = epoch

    def state(self) -> Any:
        return self.epoch

    def restore(self, state: Any) -> None:
        self.epoch = state


def _image(inputs: Inputs, keys: str) -> Tensor:
    """The one image tensor of inputs. Raises RecipeError for others."""
    image = inputs.args[0] if len(inputs.args) == 1 and not inputs.kwargs else None
    if isinstance(image, Tensor) and image.dim() == 4 and image.is_floating_point():
        return image
    raise RecipeError(f"{keys} mixes one batch of images (samples, channels, height, width): leave it out")
