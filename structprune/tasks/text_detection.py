"""Boxes of words, out of a text detector's maps: how many of the true ones, and of the dense network's, there are."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import RecipeError
from ..text.boxes import LINK, LOW, TEXT, boxes_of, matches
from .distance import relative_square
from .metrics import Metric, StillRight
from .regression import RelativeError
from .spec import TASKS, TextDetectionSpec
from .task import Task, TaskKind, main_output

_SOFT = 0.05  # a score so far from a threshold is likely on one side of it
_LEAST = 1e-3  # of variance, for pages without text


class TextDetection(Task):
    """Images in, maps (samples, 2, h, w) out: characters' middles, and joins between them (see `text.boxes`).

    Targets are boxes (samples, n, 4), as left, top, right, bottom in pixels; rows of zeros are no boxes.
    """

    name = "text_detection"
    scores_classes = False

    def __init__(self, overlap: float = 0.5) -> None:
        self.overlap = overlap

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        raise RecipeError(
            "task text_detection has no loss by boxes: train to be like the dense network (distill), or write a task "
            "of your own (task: file.py:Task)"
        )

    def importance_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Half the squares of the maps, whose gradients are those of a change that counts by its size."""
        return _maps(outputs).square().sum() / 2

    def imitation_loss(self, outputs: Any, dense: Any, temperature: float = 1.0) -> Tensor:
        """The squared error of the maps, and as much again of what boxes are made by: on which side of each threshold
        a place is. The error of the maps alone is least for scores between two answers, which cross none."""
        ours, theirs = _maps(outputs).float(), _maps(dense).float()
        sides = [
            [torch.sigmoid((maps[:, channel] - least) / _SOFT) for channel, least in ((0, LOW), (0, TEXT), (1, LINK))]
            for maps in (ours, theirs)
        ]
        errors = [relative_square(a, b, least=_LEAST) for a, b in zip(*sides, strict=True)]
        return relative_square(ours, theirs, least=_LEAST) + torch.stack(errors).mean()

    def metrics(self) -> list[Metric]:
        return [
            Metric("words found", lambda: _Matched(self.overlap, of_compared=True)),
            Metric("boxes right", lambda: _Matched(self.overlap, of_compared=False)),
        ]

    def likeness(self) -> list[Metric]:
        return [
            Metric("boxes kept", lambda: _Matched(self.overlap, of_compared=True)),
            Metric("boxes shared", lambda: _Matched(self.overlap, of_compared=False)),
            Metric("relative error", lambda: RelativeError(_maps), higher_is_better=False),
        ]

    def retention(self) -> list[Metric]:
        return [Metric("still right", lambda: StillRight(self._found))]

    def _found(self, outputs: Any, targets: Any) -> Tensor:
        """Which of the true words are found."""
        pages = []
        for maps, target in zip(_maps(outputs).float().numpy(), targets.float().numpy(), strict=True):
            boxes = _boxes(target)
            words = torch.zeros(len(boxes), dtype=torch.bool)
            words[[word for _, word in matches(_boxes(maps), boxes, least=self.overlap)]] = True
            pages.append(words)
        return torch.cat(pages)

    def check(self, outputs: Any, targets: Any) -> None:
        if not isinstance(targets, Tensor) or targets.dim() != 3 or targets.shape[2] != 4:
            kind = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
            raise RecipeError(f"targets of task text_detection are {kind}: give boxes of shape (samples, n, 4)")


class _Matched:
    """The share of boxes that are in the other set: of those compared with (recall), or of the outputs' (precision)."""

    def __init__(self, overlap: float, of_compared: bool) -> None:
        self.overlap, self.of_compared = overlap, of_compared
        self.right = self.all = 0

    def update(self, outputs: Any, compared: Any) -> None:
        maps = _maps(outputs)
        others = compared if isinstance(compared, Tensor) and compared.dim() == 3 else _maps(compared)
        for ours, theirs in zip(maps.float().numpy(), others.float().numpy(), strict=True):
            boxes = _boxes(ours), _boxes(theirs)
            self.right += len(matches(*boxes, least=self.overlap))
            self.all += len(boxes[self.of_compared])

    def compute(self) -> float | None:
        return self.right / self.all if self.all else None


def _boxes(target: np.ndarray) -> np.ndarray:
    """The boxes of a row of targets, or of a network's maps."""
    return _boxes_of_maps(target.tobytes(), target.shape) if target.ndim == 3 else target[target.any(1)]


@lru_cache(maxsize=128)
def _boxes_of_maps(values: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Each measure asks for the boxes of the same maps: those of a batch, dense and slim, are found once."""
    boxes = boxes_of(np.frombuffer(values, np.float32).reshape(shape))
    boxes.setflags(write=False)
    return boxes


def _maps(outputs: Any) -> Tensor:
    maps = main_output(outputs, "text_detection")
    if maps.dim() != 4 or maps.shape[1] != 2:
        raise RecipeError(
            f"task text_detection needs maps of shape (samples, 2, height, width), and the network returns "
            f"{tuple(maps.shape)}: choose another task"
        )
    return maps


TASKS.add(
    TaskKind(
        "text_detection",
        "boxes of words, out of maps of characters",
        TextDetectionSpec,
        lambda spec: TextDetection(spec.overlap),
        gradients="always",
    )
)
