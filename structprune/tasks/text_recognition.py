"""Lines of text, read by CTC: how many characters and lines are right, and as the dense network reads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.text import edit_distance

from ..errors import RecipeError
from ..text.reading import BLANK, decoded, read
from .metrics import Metric, StillRight
from .regression import RelativeError
from .spec import TASKS, TextRecognitionSpec
from .task import Task, TaskKind, main_output, softened_divergence


class TextRecognition(Task):
    """Lines in, scores (samples, places, characters + 1) out, with the blank first.

    Targets are numbers of characters (samples, n), and zeros where a line has ended.
    """

    name = "text_recognition"
    scores_classes = False

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """CTC's, for each character of a line."""
        scores = _scores(outputs)
        places = scores.new_full((len(scores),), scores.shape[1]).long()
        lengths = (targets != BLANK).sum(1)
        logarithms = scores.float().log_softmax(2).transpose(0, 1)
        return F.ctc_loss(logarithms, targets, places, lengths, blank=BLANK, zero_infinity=True)

    def importance_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Cross-entropy with the best character at each place, which labels would know no better: a sum."""
        scores = _scores(outputs).transpose(1, 2)
        return F.cross_entropy(scores, scores.argmax(1), reduction="sum") / scores.shape[2]

    def imitation_loss(self, outputs: Any, dense: Any, temperature: float = 1.0) -> Tensor:
        return softened_divergence(_scores(outputs).transpose(1, 2), _scores(dense).transpose(1, 2), temperature)

    def metrics(self) -> list[Metric]:
        return [
            Metric("characters", lambda: _Characters(whole=False)),
            Metric("lines", lambda: _Characters(whole=True)),
        ]

    def likeness(self) -> list[Metric]:
        return [
            Metric("same characters", lambda: _Characters(whole=False)),
            Metric("same lines", lambda: _Characters(whole=True)),
            Metric("relative error", lambda: RelativeError(_scores), higher_is_better=False),
        ]

    def retention(self) -> list[Metric]:
        return [Metric("still right", lambda: StillRight(_right))]

    def check(self, outputs: Any, targets: Any) -> None:
        if not isinstance(targets, Tensor) or targets.dim() != 2 or targets.is_floating_point():
            kind = f"{targets.dtype} {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
            raise RecipeError(f"targets of task text_recognition are {kind}: give numbers of shape (samples, n)")


class _Characters:
    """The share of characters that are right: one less the edits for each character; or the share of whole lines."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.wrong = self.all = 0

    def update(self, outputs: Any, compared: Any) -> None:
        for ours, theirs in zip(_scores(outputs), compared, strict=True):
            text, truth = read(ours.numpy()), _text(theirs)
            self.wrong += int(text != truth if self.whole else edit_distance([text], [truth], reduction="sum"))
            self.all += 1 if self.whole else len(truth)

    def compute(self) -> float | None:
        return 1 - self.wrong / self.all if self.all else None


def _text(line: Tensor) -> str:
    """Of a row of targets, or of a network's scores."""
    return decoded(line.numpy()) if line.dim() == 1 else read(line.numpy())


def _right(outputs: Any, targets: Tensor) -> Tensor:
    """Which lines are right as a whole."""
    return torch.tensor([_text(ours) == _text(truth) for ours, truth in zip(_scores(outputs), targets, strict=True)])


def _scores(outputs: Any) -> Tensor:
    scores = main_output(outputs, "text_recognition")
    if scores.dim() != 3:
        raise RecipeError(
            f"task text_recognition needs scores of shape (samples, places, characters), and the network returns "
            f"{tuple(scores.shape)}: choose another task"
        )
    return scores


TASKS.add(
    TaskKind(
        "text_recognition",
        "lines of text, read by CTC",
        TextRecognitionSpec,
        lambda spec: TextRecognition(),
        gradients="always",
    )
)
