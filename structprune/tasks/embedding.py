"""A vector a sample: cosine similarity, with given vectors and with the dense network's."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ..errors import RecipeError
from .metrics import Mean, Metric
from .spec import TASKS, EmbeddingSpec
from .task import Task, TaskKind, check_finite_targets, main_output


class Embedding(Task):
    """A vector a sample, of shape (samples, features); targets, if there are some, are vectors too."""

    name = "embedding"
    scores_classes = False

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        self.check(outputs, targets)
        return 1 - self._cosine(outputs, targets).mean()

    def imitation_loss(self, outputs: Any, dense: Any, temperature: float = 1.0) -> Tensor:
        return 1 - self._cosine(outputs, dense).mean()

    def metrics(self) -> list[Metric]:
        return [Metric("cosine", lambda: Mean(self._cosine))]

    def likeness(self) -> list[Metric]:
        return [Metric("cosine with dense", lambda: Mean(self._cosine))]

    def check(self, outputs: Any, targets: Any) -> None:
        shape = tuple(self._vectors(outputs).shape)
        if not isinstance(targets, Tensor) or tuple(targets.shape) != shape:
            kind = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
            raise RecipeError(
                f"targets are {kind} and embeddings {shape}: give vectors of that shape, or data without labels"
            )
        check_finite_targets(targets, self.name)

    def _vectors(self, outputs: Any) -> Tensor:
        vectors = main_output(outputs, self.name, ("pooler_output", "embedding", "embeddings", "logits", "out"))
        if vectors.dim() < 2:
            raise RecipeError(
                f"task embedding needs vectors (samples, features), and outputs are {tuple(vectors.shape)}"
            )
        return vectors.flatten(1)

    def _cosine(self, outputs: Any, compared: Any) -> Tensor:
        return F.cosine_similarity(self._vectors(outputs).float(), self._vectors(compared).float(), dim=1)


TASKS.add(TaskKind("embedding", "a vector a sample: cosine similarity", EmbeddingSpec, lambda spec: Embedding()))
