"""Early stopping: training ends when the metric on the validation split improves no more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..data.loading import Stream, loader_of
from ..errors import RecipeError
from ..modules import evaluating, tensors
from ..tasks import Task
from .method import TrainingMethod

BATCH_SIZE = 32


class EarlyStopping(TrainingMethod):
    """Keeps the weights of the epoch that did best, and ends after `patience` epochs that did no better."""

    def __init__(self, patience: int, task: Task, validation: Stream, workers: int = 0) -> None:
        self.patience, self.task, self.validation, self.workers = patience, task, validation, workers
        self.metric = task.metrics()[0]
        self.epochs = self.best_epoch = 0
        self.best: float | None = None
        self.weights: dict[str, Tensor] = {}

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        value, self.epochs = self._shared(self.measure(model)), epoch
        if self.best is None or (value > self.best if self.metric.higher_is_better else value < self.best):
            self.best, self.best_epoch = value, epoch
            self.weights = {key: tensor.detach().cpu().clone() for key, tensor in tensors(model).items()}
        self.over = epoch - self.best_epoch >= self.patience

    def finish(self, model: nn.Module) -> None:
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
                    raise RecipeError("patience needs labels, and the validation split has none: leave patience out")
                self.task.check(outputs, batch.labels)
                tally.update(outputs, batch.labels)
        value = tally.compute()
        if value is None:
            raise RecipeError(f"patience: {self.metric.name} has no value on the validation split: leave patience out")
        return value

    @staticmethod
    def _shared(value: float) -> float:
        """The first process's value, in all of them: statistics differ by process, and all must stop at once."""
        from accelerate.utils import broadcast_object_list

        return float(broadcast_object_list([value])[0])
