"""One class a sample: cross-entropy, top-1 (and top-5), and whether the dense network says the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import RecipeError
from ..ops import outputs as tensors_of
from .metrics import Metric, Share, StillRight
from .spec import TASKS, ClassificationSpec
from .task import Task, TaskKind, main_output, softened_divergence

HELD = 2**26  # bytes of outputs that are kept to be summed at once


class Divergence:
    """Mean KL(dense ‖ slim) in nats over samples, from scores (samples, classes, ...) along axis 1.

    Scores are kept and summed at once, in float32, up to `HELD` bytes; beyond, batch by batch into a float64.
    """

    def __init__(self, scores: Any) -> None:
        self.scores = scores
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.bytes = 0
        self.total, self.all = 0.0, 0

    def update(self, slim: Any, dense: Any) -> None:
        pair = _rows(self.scores(slim).float()), _rows(self.scores(dense).float())
        self.pairs.append(pair)
        self.bytes += sum(x.numel() * x.element_size() for x in pair)
        if self.bytes > HELD:
            self._add()

    def _add(self) -> None:
        for slim, dense in self.pairs:
            self.total += float(_divergence(slim, dense, "sum").double())
            self.all += len(slim)
        self.pairs, self.bytes = [], 0

    def compute(self) -> float | None:
        if self.all:
            self._add()
            return self.total / self.all
        if not self.pairs:
            return None
        slim, dense = (torch.cat(side) for side in zip(*self.pairs, strict=True))
        return float(_divergence(slim, dense, "sum") / len(slim))


def _rows(scores: Tensor) -> Tensor:
    """Scores (samples, classes, ...) as (places, classes): maps of several sizes go behind each other."""
    return scores if scores.dim() == 2 else scores.movedim(1, -1).reshape(-1, scores.shape[1])


def _divergence(slim: Tensor, dense: Tensor, reduction: str) -> Tensor:
    return F.kl_div(slim.log_softmax(1), dense.log_softmax(1), log_target=True, reduction=reduction)


class Classification(Task):
    """One class a sample, from scores of shape (samples, classes) and labels of shape (samples,).

    Labels may also be shares of classes, of shape (samples, classes), as mixup makes them; the largest is then the true
    class.
    """

    name = "classification"

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return F.cross_entropy(self._scores(outputs), targets)

    def importance_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Cross-entropy with the labels, or without labels with the classes that the network finds most likely."""
        tensors, scores = tensors_of(outputs), _main(outputs)
        if scores is None or scores.dim() != 2:
            shapes = ", ".join(str(tuple(x.shape)) for x in tensors)
            raise RecipeError(
                f"gradients need class scores of shape (images, classes), and this network returns {shapes}: choose a "
                "criterion without gradients (see `structprune criteria`)"
            )
        if targets is None:
            return F.cross_entropy(scores, scores.argmax(1), reduction="sum")
        self.check(scores, targets)
        return F.cross_entropy(scores, targets if _shares(targets) else targets.long(), reduction="sum")

    def imitation_loss(self, outputs: Any, dense: Any, temperature: float = 1.0) -> Tensor:
        return softened_divergence(self._scores(outputs), self._scores(dense), temperature)

    def metrics(self) -> list[Metric]:
        return [Metric("accuracy", lambda: Share(self._right)), Metric("top-5 accuracy", lambda: Share(self._top_five))]

    def likeness(self) -> list[Metric]:
        return [
            Metric("agreement", lambda: Share(self._same)),
            Metric("kl", lambda: Divergence(self._scores), higher_is_better=False),
        ]

    def retention(self) -> list[Metric]:
        return [Metric("still right", lambda: StillRight(self._right))]

    def classes_scored(self, outputs: Any) -> int | None:
        return self._scores(outputs).shape[1]

    def check(self, outputs: Any, targets: Any) -> None:
        images, classes = self._scores(outputs).shape
        if _shares(targets) and targets.shape == (images, classes) and bool((targets >= 0).all()):
            return
        plain = isinstance(targets, Tensor) and not (
            targets.is_floating_point() or targets.is_complex() or targets.dtype is torch.bool
        )
        if not plain or targets.shape != (images,) or not ((targets >= 0) & (targets < classes)).all():
            kind = f"{targets.dtype} of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets)
            raise RecipeError(
                f"the labels are {kind}, and the network gives {classes} classes for {images} images: give one class "
                f"number an image, from 0 to {classes - 1}"
            )

    def _scores(self, outputs: Any) -> Tensor:
        scores = main_output(outputs, self.name)
        if scores.dim() != 2:
            raise RecipeError(
                f"task classification needs class scores of shape (samples, classes), and the network returns "
                f"{tuple(scores.shape)}: choose another task"
            )
        return scores

    def _right(self, outputs: Any, targets: Tensor) -> Tensor:
        return self._scores(outputs).argmax(1) == _numbers(targets)

    def _top_five(self, outputs: Any, targets: Tensor) -> Tensor | None:
        scores = self._scores(outputs)
        if scores.shape[1] <= 5:
            return None
        return (scores.topk(5, dim=1).indices == _numbers(targets)[:, None]).any(1)

    def _same(self, outputs: Any, dense: Any) -> Tensor:
        return self._scores(outputs).argmax(1) == self._scores(dense).argmax(1)


def _shares(targets: Any) -> bool:
    return isinstance(targets, Tensor) and targets.is_floating_point() and targets.dim() == 2


def _numbers(targets: Tensor) -> Tensor:
    return targets.argmax(1) if _shares(targets) else targets


def _main(outputs: Any) -> Tensor | None:
    try:
        return main_output(outputs, "classification")
    except RecipeError:
        return None


TASKS.add(
    TaskKind(
        "classification",
        "one class a sample: accuracy",
        ClassificationSpec,
        lambda spec: Classification(),
        True,
        "always",
    )
)
