"""What a network is for: its loss, its metrics, which outputs are compared, and how a batch becomes its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from ..calibration.batches import Batch
from ..errors import RecipeError
from ..ops import Inputs
from ..ops import outputs as tensors_of
from .distance import relative_square
from .metrics import Metric
from .spec import TASKS as TASKS
from .spec import TaskSpec

TARGETS = ("labels", "label", "target", "targets", "mask")  # keys of a batch that is a dict


class Task:
    """The base of all tasks. A subclass says `loss` and `metrics`, and what differs from the defaults below.

    Outputs are whatever the network returns; targets are whatever stands beside the inputs in the data.
    """

    name: ClassVar[str] = "task"
    scores_classes: ClassVar[bool] = True  # whether outputs (samples, n) are scores of classes

    def collate(self, items: list[Any]) -> Any:
        """Makes a batch of items; by default as PyTorch does, which stacks tensors.

        Args:
            items: of the dataset

        Returns:
            The batch as `batch` takes it.
        """
        return default_collate(items)

    def batch(self, raw: Any, training: bool = False) -> Batch:
        """Reads the network's inputs and the targets.

        A tensor is the input. Of a tuple the last is the targets, if there are several; of a dict the entry named
        labels, label, target, targets or mask, and the others are keyword arguments.

        Args:
            raw: what `collate` or a user's loader returns
            training: whether the batch is for training

        Returns:
            Inputs and targets.

        Raises:
            RecipeError: the data gives anything else
        """
        if isinstance(raw, Batch):
            return raw
        if isinstance(raw, Tensor):
            return Batch(Inputs((raw,), {}))
        if isinstance(raw, Mapping):
            keys = [key for key in TARGETS if key in raw]
            rest = {str(key): value for key, value in raw.items() if key not in keys[:1]}
            return Batch(Inputs((), rest), raw[keys[0]] if keys else None)
        if isinstance(raw, (tuple, list)) and raw:
            inputs, targets = (raw, None) if len(raw) == 1 else (raw[:-1], raw[-1])
            if len(inputs) == 1 and isinstance(inputs[0], (Mapping, tuple, list)):
                return Batch(Inputs.of(inputs[0]), targets)
            return Batch(Inputs(tuple(inputs), {}), targets)
        raise RecipeError(
            f"the data gives a {type(raw).__name__}: give tensors, tuples of inputs with the target last, or dicts of "
            "keyword arguments"
        )

    def count(self, batch: Batch) -> int:
        """Counts the samples of a batch.

        Args:
            batch: as `batch` gives it

        Returns:
            How many there are.
        """
        return batch.images

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Gives the loss to train by.

        Args:
            outputs: of the network
            targets: of the batch

        Returns:
            The mean loss of the batch, a scalar.

        Raises:
            NotImplementedError: the task has none
        """
        raise NotImplementedError

    def importance_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Gives the loss whose gradients criteria see.

        Args:
            outputs: of the network
            targets: of the batch; None where there are none

        Returns:
            The loss summed over the batch, a scalar.

        Raises:
            RecipeError: the task has no such loss for these targets
        """
        if targets is None:
            raise RecipeError(
                f"gradients of task {self.name} need labels: give labelled data, or choose a criterion without "
                "gradients (see `structprune criteria`)"
            )
        return self.loss(outputs, targets) * samples(outputs)

    def imitation_loss(self, outputs: Any, dense: Any, temperature: float = 1.0) -> Tensor:
        """Gives how far outputs are from the dense network's, as a loss to train by (distillation).

        By default the squared error of all output tensors over the variance of the dense network's.

        Args:
            outputs: of the network
            dense: of the dense network, for the same inputs
            temperature: for tasks whose outputs are class scores

        Returns:
            The mean loss of the batch, a scalar.

        Raises:
            RecipeError: the outputs can't be compared
        """
        ours, theirs = tensors_of(outputs), tensors_of(dense)
        if [x.shape for x in ours] != [x.shape for x in theirs] or not ours:
            raise RecipeError(
                f"outputs of task {self.name} while training can't be compared with the dense network's: give a task "
                "of your own with imitation_loss (task: file.py:Task)"
            )
        return torch.stack([relative_square(a, b) for a, b in zip(ours, theirs, strict=True)]).mean()

    def metrics(self) -> list[Metric]:
        """Gives the metrics of outputs compared with targets.

        Returns:
            The metrics; the first is the one that counts.

        Raises:
            NotImplementedError: the task has none
        """
        raise NotImplementedError

    def likeness(self) -> list[Metric]:
        """Gives the metrics of outputs (first argument) compared with the dense network's.

        Returns:
            The metrics; the first is the one that counts.

        Raises:
            NotImplementedError: the task has none
        """
        raise NotImplementedError

    def retention(self) -> list[Metric]:
        """Gives the metrics of outputs compared with a pair: the dense network's outputs, and targets.

        They say what of the dense network's right answers the slim one still gives, which a metric of each alone does
        not: one network may be as good as the other and right elsewhere (negative flips; Yan et al.,
        Positive-Congruent Training, CVPR 2021, section 3).

        Returns:
            The metrics; by default none.
        """
        return []

    def classes_scored(self, outputs: Any) -> int | None:
        """Counts the classes that outputs score a sample in.

        Args:
            outputs: of the network

        Returns:
            The number; None where the task has no such number.
        """
        return None

    def check(self, outputs: Any, targets: Any) -> None:
        """Checks that targets can belong to such outputs.

        Args:
            outputs: of the network
            targets: of the batch

        Raises:
            RecipeError: they can't
        """


def check_finite_targets(targets: Tensor, task: str) -> None:
    """Raises RecipeError for targets that are not finite, as the loss would not be either."""
    if not bool(torch.isfinite(targets).all()):
        raise RecipeError(
            f"targets of task {task} hold NaN or infinite values: leave such samples out, or write a task of your own "
            "that does (task: file.py:Task)"
        )


def softened_divergence(scores: Tensor, dense: Tensor, temperature: float) -> Tensor:
    """T²·KL(dense/T ‖ scores/T) in nats, the mean over all places; scores are (samples, classes, ...).

    T² keeps the size of the gradients (Hinton et al. 2015, section 2).
    """
    ours, theirs = ((x.float() / temperature).log_softmax(1) for x in (scores, dense))
    places = ours.numel() // ours.shape[1]
    return temperature**2 * F.kl_div(ours, theirs, log_target=True, reduction="sum") / places


def samples(outputs: Any) -> int:
    """The length of axis 0 of the first tensor in a network's outputs."""
    leaves = torch.utils._pytree.tree_leaves(outputs)
    return next((int(x.shape[0]) for x in leaves if isinstance(x, Tensor) and x.dim()), 1)


def main_output(outputs: Any, task: str, keys: tuple[str, ...] = ("logits", "out")) -> Tensor:
    """The one tensor of outputs that a task is about: the only one, or a dict's entry of that name, or the first.

    Raises RecipeError where there is none.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        for key in keys:
            if isinstance(outputs.get(key), Tensor):
                return outputs[key]
    leaves = [x for x in torch.utils._pytree.tree_leaves(outputs) if isinstance(x, Tensor)]
    if len(leaves) == 1 or (leaves and isinstance(outputs, (tuple, list))):
        return leaves[0]
    raise RecipeError(
        f"task {task} is about one tensor, and the network returns a {type(outputs).__name__} of {len(leaves)}: name "
        "it logits or out, or write a task of your own (task: file.py:Task)"
    )


@dataclass(frozen=True)
class TaskKind:
    """A registered task: `make` builds it from its `spec`. `classes`: its targets are one class number a sample.
    `gradients` says when criteria can see gradients of its loss: with labels, always (it stands in for them), or never.
    """

    name: str
    description: str
    spec: type[TaskSpec]
    make: Callable[[Any], Task]
    classes: bool = False
    gradients: Literal["labels", "always", "never"] = "labels"
