"""One class a pixel: cross-entropy, mean intersection over union, and where the dense network says the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import RecipeError
from .classification import Divergence
from .metrics import Metric, Share, StillRight, Torchmetric, torchmetrics_class
from .spec import TASKS, SegmentationSpec
from .task import Task, TaskKind, main_output, softened_divergence


class Segmentation(Task):
    """One class a pixel, from scores (samples, classes, h, w) and masks of class numbers (samples, H, W).

    Scores of another size than the mask's are resized to it, bilinearly. Where the network returns a dict, they are its
    `logits` or `out`.
    """

    name = "segmentation"

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        scores, mask = self._at(outputs, targets)
        if bool((mask == self.ignore_index).all()):
            return scores.sum() * 0  # the mean over no pixel is not a number
        return F.cross_entropy(scores, mask, ignore_index=self.ignore_index)

    def importance_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Cross-entropy, a mean over pixels and a sum over samples; without masks on the network's own classes."""
        scores = self._scores(outputs)
        mask = scores.argmax(1) if targets is None else targets
        return self.loss(scores, mask) * len(scores)

    def imitation_loss(self, outputs: Any, dense: Any, temperature: float = 1.0) -> Tensor:
        return softened_divergence(self._scores(outputs), self._scores(dense), temperature)

    def metrics(self) -> list[Metric]:
        return [Metric("miou", self._iou), Metric("pixel accuracy", lambda: Share(self._right))]

    def likeness(self) -> list[Metric]:
        return [
            Metric("agreement", lambda: Share(lambda a, b: self._scores(a).argmax(1) == self._scores(b).argmax(1))),
            Metric("kl", lambda: Divergence(self._scores), higher_is_better=False),
        ]

    def retention(self) -> list[Metric]:
        return [Metric("still right", lambda: StillRight(self._right))]

    def check(self, outputs: Any, targets: Any) -> None:
        scores = self._scores(outputs)
        if not isinstance(targets, Tensor) or targets.is_floating_point() or len(targets.shape) not in (3, 4):
            kind = f"{targets.dtype} {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
            raise RecipeError(f"a mask is {kind}: give class numbers of shape (samples, height, width)")
        wrong = targets[(targets != self.ignore_index) & ((targets < 0) | (targets >= scores.shape[1]))]
        if wrong.numel():
            raise RecipeError(
                f"a mask holds class {int(wrong[0])}, and the network gives {scores.shape[1]}: give 0 to "
                f"{scores.shape[1] - 1}, or task.ignore_index={int(wrong[0])}"
            )

    def _iou(self) -> Torchmetric:
        kind = torchmetrics_class("classification.MulticlassJaccardIndex", self.name)
        return Torchmetric(kind(self.num_classes, ignore_index=self.ignore_index), self._classes)

    def _scores(self, outputs: Any) -> Tensor:
        scores = main_output(outputs, self.name)
        if scores.dim() != 4 or scores.shape[1] != self.num_classes:
            raise RecipeError(
                f"task segmentation needs scores of shape (samples, {self.num_classes}, height, width), and the "
                f"network returns {tuple(scores.shape)}: set task.num_classes, or choose another task"
            )
        return scores

    def _at(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        scores, mask = self._scores(outputs), targets.long()
        if mask.dim() == 4 and mask.shape[1] == 1:
            mask = mask[:, 0]
        if scores.shape[-2:] != mask.shape[-2:]:
            scores = F.interpolate(scores, mask.shape[-2:], mode="bilinear", align_corners=False)
        return scores, mask

    def _classes(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        scores, mask = self._at(outputs, targets)
        return scores.argmax(1), mask

    def _right(self, outputs: Any, targets: Tensor) -> Tensor:
        classes, mask = self._classes(outputs, targets)
        counts = mask != self.ignore_index
        return torch.masked_select(classes == mask, counts)


TASKS.add(
    TaskKind(
        "segmentation",
        "one class a pixel: mean intersection over union",
        SegmentationSpec,
        lambda spec: Segmentation(spec.num_classes, spec.ignore_index),
        gradients="always",
    )
)
