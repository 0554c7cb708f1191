"""Numbers at every place (restoration, depth, heat maps): squared error, PSNR, the distance to the dense network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import RecipeError
from .metrics import Metric, Share, Torchmetric, torchmetrics_class
from .spec import TASKS, RegressionSpec
from .task import Task, TaskKind, check_finite_targets, main_output


class RelativeError:
    """‖outputs − compared‖ ÷ ‖compared‖ over all batches, in float64."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.error = self.size = 0.0

    def update(self, outputs: Any, compared: Any) -> None:
        values, reference = self.values(outputs).double(), self.values(compared).double()
        self.error += float((values - reference).square().sum())
        self.size += float(reference.square().sum())

    def compute(self) -> float | None:
        return (self.error / self.size) ** 0.5 if self.size else None


class Regression(Task):
    """Numbers of any shape, as many as the targets."""

    name = "regression"
    scores_classes = False

    def __init__(self, data_range: float = 1.0, peaks: float | None = None) -> None:
        self.data_range, self.peaks = data_range, peaks

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        self.check(outputs, targets)
        return F.mse_loss(self._values(outputs), targets)

    def metrics(self) -> list[Metric]:
        metrics = [Metric("psnr", self._psnr)]
        return metrics if self.peaks is None else [*metrics, Metric("peaks", lambda: Share(self._near))]

    def likeness(self) -> list[Metric]:
        metrics = [Metric("relative error", lambda: RelativeError(self._values), higher_is_better=False)]
        same = Metric("same peaks", lambda: Share(lambda a, b: self._near(a, self._values(b))))
        return metrics if self.peaks is None else [*metrics, same]

    def check(self, outputs: Any, targets: Any) -> None:
        shape = tuple(self._values(outputs).shape)
        if not isinstance(targets, Tensor) or tuple(targets.shape) != shape:
            kind = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
            raise RecipeError(f"targets are {kind} and outputs {shape}: task regression compares them place by place")
        check_finite_targets(targets, self.name)

    def _values(self, outputs: Any) -> Tensor:
        return main_output(outputs, self.name, ("out", "predicted_depth", "logits"))

    def _psnr(self) -> Torchmetric:
        kind = torchmetrics_class("image.PeakSignalNoiseRatio", self.name)
        return Torchmetric(kind(data_range=self.data_range), lambda outputs, targets: (self._values(outputs), targets))

    def _near(self, outputs: Any, targets: Tensor) -> Tensor:
        """Whether each map's peak is near that of the target's, of shape (samples, maps)."""
        maps = self._values(outputs)
        if maps.dim() != 4:
            raise RecipeError(f"task.peaks needs maps of shape (samples, maps, h, w), these are {tuple(maps.shape)}")
        places = [torch.stack(_place(x), -1).float() for x in (maps, targets)]
        assert self.peaks is not None
        return (places[0] - places[1]).norm(dim=-1) <= self.peaks


def _place(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each map's highest value."""
    flat = maps.flatten(2).argmax(2)
    return flat // maps.shape[3], flat % maps.shape[3]


TASKS.add(
    TaskKind(
        "regression",
        "numbers at every place, heat maps too: PSNR",
        RegressionSpec,
        lambda spec: Regression(spec.data_range, spec.peaks),
    )
)
