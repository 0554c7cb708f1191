"""Measurements on the validation split while training, by which the best weights are kept and training ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..calibration import Batch
from ..data.loading import Stream, loader_of
from ..errors import RecipeError
from ..modules import evaluating, tensors
from ..tasks import Task
from ..tasks.metrics import Metric
from .averaging import AveragedWeights
from .method import Training, TrainingMethod
from .spec import TrainSpec

BATCH_SIZE = 32


class Validation(TrainingMethod):
    """Measures the task's first metric every `val_interval` epochs and after the last one; without labels, the first
    of those that compare with the dense network.

    With `keep_best` or `patience`, the weights of the best epoch are those of the trained network; with `patience`,
    training ends after so many epochs that did no better. A slim network's weights before its fine-tuning count as an
    epoch's, so that none ends worse than it began. Where weights are averaged, the average is what is measured.
    An epoch with whose network another of `methods` is not through yet (`settled`) is measured, and never the best.
    """

    def __init__(
        self,
        spec: TrainSpec,
        task: Task,
        validation: Stream,
        workers: int = 0,
        average: AveragedWeights | None = None,
        methods: Sequence[TrainingMethod] = (),
    ) -> None:
        self.spec, self.task, self.validation, self.workers, self.average = spec, task, validation, workers, average
        self.methods = methods
        self.metric: Metric | None = None  # once it is known whether there are labels
        self.dense: nn.Module | None = None  # where there are none
        self.epochs = self.best_epoch = 0
        self.best: float | None = None
        self.value: float | None = None
        self.weights: dict[str, Tensor] = {}

    def start(self, training: Training) -> None:
        first = next(iter(loader_of(self.validation, 1, self.task.collate)), None)
        if first is None or self.task.batch(first).labels is not None:
            self.metric = self.task.metrics()[0]
        elif training.dense is not None:
            self.metric, self.dense = next(iter(self.task.likeness()), None), training.taught_by("keep_best")
        if self.metric is None and self.spec.validates:
            raise RecipeError(
                "keep_best, patience and val_interval measure beside labels or a dense network's outputs, and here "
                f"task {self.task.name} has neither: leave them out"
            )
        if training.dense is not None and self.spec.chooses:
            self._weigh(training.model, 0)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        self.epochs, self.value = epoch, None
        if self.metric is None or (epoch % self.spec.interval and epoch < self.spec.epochs):
            return
        standing: AbstractContextManager[None] = (
            nullcontext() if self.average is None else self.average.standing_in(model)
        )
        with standing:
            self._weigh(model, epoch)

    def _weigh(self, model: nn.Module, epoch: int) -> None:
        """Measures, keeps the weights if they are the best so far, and ends the training where that is long ago."""
        assert self.metric is not None
        value = self.value = self._shared(self.measure(model))
        if not all(method.settled for method in self.methods):
            return
        if self.best is None or (value > self.best if self.metric.higher_is_better else value < self.best):
            self.best, self.best_epoch = value, epoch
            if self.spec.chooses:
                self.weights = {key: tensor.detach().cpu().clone() for key, tensor in tensors(model).items()}
        self.over = self.spec.patience is not None and epoch - self.best_epoch >= self.spec.patience

    def finish(self, model: nn.Module) -> None:
        if not self.spec.chooses:
            return
        if self.best is None:
            self.note = (
                "no epoch is the best: none was measured after which the network was what training is to end in, and "
                "the last weights are kept"
            )
            return
        with torch.no_grad():
            for key, tensor in tensors(model).items():
                tensor.copy_(self.weights[key])
        assert self.metric is not None
        trained = f"of the {self.epochs} that were trained"
        when = f"after epoch {self.best_epoch} {trained}" if self.best_epoch else f"before the first {trained}"
        self.note = (
            f"{self.metric.name} on the validation split was best, {self.best:.4f}, {when}: those weights are kept"
        )

    def state(self) -> Any:
        return [self.epochs, self.best_epoch, self.best, self.over, self.weights]

    def restore(self, state: Any) -> None:
        self.epochs, self.best_epoch, self.best, self.over, self.weights = state

    def measure(self, model: nn.Module) -> float:
        """The task's first metric on the validation split. Raises RecipeError if it has no value there."""
        assert self.metric is not None
        tally = self.metric.make()
        with evaluating(model):
            for raw in loader_of(self.validation, BATCH_SIZE, self.task.collate, workers=self.workers):
                batch = self.task.batch(raw)
                compared = batch.labels if self.dense is None else _outputs(self.dense, batch)
                outputs = _outputs(model, batch)
                if self.dense is None:
                    if compared is None:
                        raise RecipeError("some samples of the validation split have labels, and some have none")
                    self.task.check(outputs, compared)
                tally.update(outputs, compared)
        value = tally.compute()
        if value is None:
            raise RecipeError(
                f"{self.metric.name} has no value on the validation split: leave keep_best, patience and val_interval "
                "out"
            )
        return value

    @staticmethod
    def _shared(value: float) -> float:
        """The first process's value, in all of them: statistics differ by process, and all must stop at once."""
        from accelerate.utils import broadcast_object_list

        return float(broadcast_object_list([value])[0])


def _outputs(network: nn.Module, batch: Batch) -> Any:
    """What a network makes of a batch, on the CPU."""
    outputs = batch.inputs.beside(network).call(network)
    return pytree.tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, outputs)
