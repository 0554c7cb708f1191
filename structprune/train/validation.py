"""Measurements on the validation split while training, by which the best weights are kept and training ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..data.loading import Stream, loader_of
from ..errors import RecipeError
from ..modules import evaluating, tensors
from ..tasks import Task
from .averaging import AveragedWeights
from .method import TrainingMethod
from .spec import TrainSpec

BATCH_SIZE = 32


class Validation(TrainingMethod):
    """Measures the task's first metric every `val_interval` epochs and after the last one.

    With `keep_best` or `patience`, the weights of the best epoch are those of the trained network; with `patience`,
    training ends after so many epochs that did no better. Where weights are averaged, the average is what is measured.
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
        self.metric = task.metrics()[0]
        self.epochs = self.best_epoch = 0
        self.best: float | None = None
        self.value: float | None = None
        self.weights: dict[str, Tensor] = {}

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        self.epochs, self.value = epoch, None
        if epoch % self.spec.val_interval and epoch < self.spec.epochs:
            return
        standing: AbstractContextManager[None] = (
            nullcontext() if self.average is None else self.average.standing_in(model)
        )
        with standing:
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
        self.note = (
            f"{self.metric.name} on the validation split was best, {self.best:.4f}, after epoch {self.best_epoch} of "
            f"the {self.epochs} that were trained: those weights are kept"
        )

    def state(self) -> Any:
        return [self.epochs, self.best_epoch, self.best, self.over, self.weights]

    def restore(self, state: Any) -> None:
        self.epochs, self.best_epoch, self.best, self.over, self.weights = state

    def measure(self, model: nn.Module) -> float:
        """The task's first metric on the validation split. Raises RecipeError if it has no value there."""
        tally = self.metric.make()
        with evaluating(model):
            for raw in loader_of(self.validation, BATCH_SIZE, self.task.collate, workers=self.workers):
                batch = self.task.batch(raw)
                outputs = batch.inputs.beside(model).call(model)
                outputs = pytree.tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, outputs)
                if batch.labels is None:
                    raise RecipeError(
                        "keep_best and patience need labels, and the validation split has none: leave them out"
                    )
                self.task.check(outputs, batch.labels)
                tally.update(outputs, batch.labels)
        value = tally.compute()
        if value is None:
            raise RecipeError(
                f"{self.metric.name} has no value on the validation split: leave keep_best and patience out"
            )
        return value

    @staticmethod
    def _shared(value: float) -> float:
        """The first process's value, in all of them: statistics differ by process, and all must stop at once."""
        from accelerate.utils import broadcast_object_list

        return float(broadcast_object_list([value])[0])
