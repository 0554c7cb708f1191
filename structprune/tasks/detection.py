"""Boxes with classes and scores, by torchvision's conventions: mean average precision by torchmetrics."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..calibration.batches import Batch
from ..errors import RecipeError
from ..extras import need
from ..ops import Inputs
from ..user_code_calls import reason
from .metrics import Metric, Torchmetric, torchmetrics_class
from .spec import TASKS, DetectionSpec
from .task import Task, TaskKind

BACKENDS = ("pycocotools", "faster_coco_eval")
BOX_KEYS = {"boxes", "scores", "labels"}


class Detection(Task):
    """Images in, boxes, scores and labels out, with torchvision's names.

    Images of one size come as one tensor (samples, c, h, w), of several as a list. Outputs are a dict of boxes
    (samples, n, 4), scores (samples, n) and labels (samples, n), or a list of such dicts, one an image. Targets are
    dicts of boxes (n, 4), as left, top, right, bottom, and labels (n,). While training the network gets images and
    targets and returns a dict of losses.
    """

    name = "detection"

    def __init__(self, score: float = 0.5) -> None:
        self.score = score
        if not any(find_spec(name) for name in BACKENDS):
            need("task detection", "detection")

    def collate(self, items: list[Any]) -> Any:
        """Lists of images and of targets, as they may differ in size; of images alone where there are no targets."""
        labelled = isinstance(items[0], (tuple, list))
        if not labelled:
            return (items, None)
        return [item[0] for item in items], [dict(item[1]) for item in items]

    def batch(self, raw: Any, training: bool = False) -> Batch:
        if isinstance(raw, Batch):
            return raw
        if isinstance(raw, Tensor) or not (isinstance(raw, (tuple, list)) and len(raw) == 2):
            raw = raw, None
        images, targets = raw
        if not isinstance(images, Tensor):
            images = list(images)
            if len({image.shape for image in images}) == 1:
                images = torch.stack(images)
        return Batch(Inputs((images, targets) if training and targets is not None else (images,), {}), targets)

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
        try:
            metric = kind(backend=backend)
        except ImportError as error:
            raise RecipeError(f"task detection can't measure here: {reason(error)}") from error
        # torchmetrics has -1 where there is no true box
        return Torchmetric(
            metric, lambda a, b: prepare(_by_image(a), b), lambda values: None if values[key] < 0 else values[key]
        )

    def _against_dense(self, outputs: Any, dense: Any) -> tuple[Any, Any]:
        """The dense network's confident boxes stand in for the truth."""
        truth = []
        for boxes in _by_image(dense):
            confident = boxes["scores"] >= self.score
            truth.append({"boxes": boxes["boxes"][confident], "labels": boxes["labels"][confident]})
        return outputs, truth


def _by_image(outputs: Any) -> list[dict[str, Tensor]]:
    """A dict of boxes, scores and labels an image. Raises RecipeError for other outputs."""
    if isinstance(outputs, Mapping) and outputs.keys() >= BOX_KEYS:
        return [{key: outputs[key][i] for key in BOX_KEYS} for i in range(len(outputs["boxes"]))]
    if isinstance(outputs, (tuple, list)) and all(isinstance(x, Mapping) and x.keys() >= BOX_KEYS for x in outputs):
        return [{key: boxes[key] for key in BOX_KEYS} for boxes in outputs]
    raise RecipeError(
        f"task detection needs a dict of boxes, scores and labels, or a list of them, and the network returns a "
        f"{type(outputs).__name__}: wrap it, or write a task of your own (task: file.py:Task)"
    )


TASKS.add(
    TaskKind(
        "detection",
        "boxes with classes and scores: mean average precision",
        DetectionSpec,
        lambda spec: Detection(spec.score),
        gradients="never",
    )
)
