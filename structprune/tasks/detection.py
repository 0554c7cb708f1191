"""Boxes with classes and scores, as torchvision's detectors give them: mean average precision by torchmetrics."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..calibration.batches import Batch
from ..errors import RecipeError
from ..graph.capture import Inputs
from ..specs import Number
from .metrics import Metric, Torchmetric, torchmetrics_class
from .task import TASKS, Task, TaskKind, TaskSpec

BACKENDS = ("pycocotools", "faster_coco_eval")


class DetectionSpec(TaskSpec):
    """Boxes with classes and scores. Boxes of the dense network from `score` on are what a slim one should find."""

    name: Literal["detection"] = "detection"
    score: Number = Field(default=0.5, ge=0, le=1)


class Detection(Task):
    """torchvision's conventions: a list of images (c, h, w) in, a list of dicts of boxes, scores and labels out.

    Targets are dicts of boxes (n, 4), as left, top, right, bottom, and labels (n,). While training the network gets
    images and targets and returns a dict of losses.
    """

    name = "detection"

    def __init__(self, score: float = 0.5) -> None:
        self.score = score
        if not any(find_spec(name) for name in BACKENDS):
            raise RecipeError("task detection measures by COCO's code: pip install pycocotools (or faster-coco-eval)")

    def collate(self, items: list[Any]) -> Any:
        """Lists, as images may differ in size."""
        labelled = isinstance(items[0], (tuple, list))
        if not labelled:
            return (items, None)
        return [item[0] for item in items], [dict(item[1]) for item in items]

    def batch(self, made: Any, training: bool = False) -> Batch:
        if isinstance(made, Batch):
            return made
        images, targets = made
        arguments = (list(images), targets) if training and targets is not None else (list(images),)
        return Batch(Inputs(arguments, {}), targets)

    def count(self, batch: Batch) -> int:
        return len(batch.inputs.args[0])

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        if not isinstance(outputs, Mapping) or not outputs:
            raise RecipeError(
                f"task detection trains by the dict of losses that torchvision's detectors return in training mode, "
                f"and this network returns a {type(outputs).__name__}: write a task of your own (task: file.py:Task)"
            )
        return torch.stack(list(outputs.values())).sum()

    def importance_loss(self, outputs: Any, targets: Any) -> Tensor:
        raise RecipeError(
            "task detection has no loss in evaluation mode: choose a criterion without gradients (see `structprune "
            "criteria`)"
        )

    def metrics(self) -> list[Metric]:
        return [
            Metric("map", lambda: self._precision("map", lambda outputs, targets: (outputs, targets))),
            Metric("map50", lambda: self._precision("map_50", lambda outputs, targets: (outputs, targets))),
        ]

    def likeness(self) -> list[Metric]:
        return [Metric("map50 with dense", lambda: self._precision("map_50", self._against_dense))]

    def _precision(self, key: str, prepare: Any) -> Torchmetric:
        backend = next(name for name in BACKENDS if find_spec(name))
        kind = torchmetrics_class("detection.MeanAveragePrecision", self.name)
        return Torchmetric(kind(backend=backend), prepare, lambda found: found[key])

    def _against_dense(self, outputs: Any, dense: Any) -> tuple[Any, Any]:
        """The dense network's sure boxes stand for the truth."""
        truth = []
        for found in dense:
            sure = found["scores"] >= self.score
            truth.append({"boxes": found["boxes"][sure], "labels": found["labels"][sure]})
        return outputs, truth


TASKS.add(
    TaskKind(
        "detection",
        "boxes with classes and scores: mean average precision",
        DetectionSpec,
        lambda spec: Detection(spec.score),
    )
)
