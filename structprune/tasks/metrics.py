"""What a task measures, batch by batch: a metric's name and direction, and how it adds up.

A tally takes, batch by batch, the network's outputs and what they are compared with (targets, or another network's
outputs), and computes the metric at the end. `Torchmetric` makes tallies of torchmetrics' metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import RecipeError


class Tally(Protocol):
    """Adds up one metric over batches."""

    def update(self, outputs: Any, compared: Any) -> None:
        """Takes in one batch.

        Args:
            outputs: a network's outputs
            compared: the targets, or the outputs that they are compared with
        """

    def compute(self) -> float | None:
        """Computes the metric over all batches.

        Returns:
            The metric; None if it has no meaning for them (top-5 of three classes).
        """


@dataclass(frozen=True)
class Metric:
    """One number about a network, with its direction. `make` starts a tally of it."""

    name: str
    make: Callable[[], Tally]
    higher_is_better: bool = True


class Share:
    """The share of samples for which `function(outputs, compared)`, truth values of any shape, holds."""

    def __init__(self, function: Callable[[Any, Any], Tensor | None]) -> None:
        self.function = function
        self.right = self.all = 0

    def update(self, outputs: Any, compared: Any) -> None:
        truths = self.function(outputs, compared)
        if truths is not None:
            self.right += int(truths.sum())
            self.all += truths.numel()

    def compute(self) -> float | None:
        # in float32, as the mean of a tensor of truth values is
        return float(torch.tensor(float(self.right)) / self.all) if self.all else None


class StillRight:
    """Of what the dense network gets right, the share that another gets right too: compared with pairs of the dense
    network's outputs and targets. `right(outputs, targets)` are truth values, as many for either network."""

    def __init__(self, right: Callable[[Any, Any], Tensor]) -> None:
        self.right = right
        self.kept = self.all = 0

    def update(self, outputs: Any, compared: Any) -> None:
        dense, targets = compared
        ours, theirs = self.right(outputs, targets), self.right(dense, targets)
        self.kept += int((ours & theirs).sum())
        self.all += int(theirs.sum())

    def compute(self) -> float | None:
        return self.kept / self.all if self.all else None


class Mean:
    """The mean over samples of `function(outputs, compared)`, of shape (samples,); summed in float64."""

    def __init__(self, function: Callable[[Any, Any], Tensor]) -> None:
        self.function = function
        self.total, self.all = 0.0, 0

    def update(self, outputs: Any, compared: Any) -> None:
        values = self.function(outputs, compared)
        self.total += float(values.double().sum())
        self.all += values.numel()

    def compute(self) -> float | None:
        return self.total / self.all if self.all else None


class Torchmetric:
    """A metric of torchmetrics; `prepare` makes its arguments of outputs and what they are compared with."""

    def __init__(
        self,
        metric: Any,
        prepare: Callable[[Any, Any], tuple[Any, Any]],
        read: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        self.metric, self.prepare, self.read = metric, prepare, read
        self.empty = True

    def update(self, outputs: Any, compared: Any) -> None:
        self.metric.update(*self.prepare(outputs, compared))
        self.empty = False

    def compute(self) -> float | None:
        value = None if self.empty else self.read(self.metric.compute())
        return None if value is None else float(value)


def torchmetrics_class(path: str, task: str) -> Any:
    """A class of torchmetrics, such as `image.PeakSignalNoiseRatio`. Raises RecipeError if it is not installed."""
    module, _, name = path.rpartition(".")
    try:
        import importlib

        return getattr(importlib.import_module(f"torchmetrics.{module}"), name)
    except (ImportError, AttributeError) as error:  # it leaves out what it lacks packages for
        raise RecipeError(
            f"task {task} measures by torchmetrics, which can't be imported with {name}: pip install torchmetrics "
            "torchvision"
        ) from error
