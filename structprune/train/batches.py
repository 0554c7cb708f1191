"""The batches that a training sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from ..data.loading import data_loader, is_dataset
from ..errors import RecipeError
from ..ops import Inputs
from ..tasks import Task
from .spec import TrainSpec


def loader_for(train: Any, spec: TrainSpec, task: Task, workers: int) -> DataLoader:
    """The batches of an epoch, as they come of a user's loader, or drawn anew from a dataset. Raises RecipeError."""
    if isinstance(train, DataLoader):
        return train
    if not is_dataset(train):
        raise RecipeError(
            f"training data is a {type(train).__name__}: give a torch Dataset with a length, or a DataLoader"
        )
    if not len(train):
        raise RecipeError("there is no training data: give at least one batch")
    return data_loader(train, spec.batch_size, task.collate, workers=workers, shuffle=True, drop_last=True)


def let_seed_decide(loader: DataLoader) -> None:
    """Takes generators of their own from what draws an epoch's order: each epoch's is of its own seed then, in one
    process as in several, and in a resumed training as in a whole one."""
    samplers: list[Any] = [loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]
    for sampler in samplers:
        if getattr(sampler, "generator", None) is not None:
            sampler.generator = None


def check_shares(spec: TrainSpec, processes: int) -> None:
    """Raises RecipeError for batches that processes can't share evenly, or whose parts can't be mixed in pairs."""
    if spec.batch_size % processes:
        raise RecipeError(
            f"batch_size={spec.batch_size} can't be shared evenly by {processes} processes: give a multiple of "
            f"{processes}"
        )
    if spec.mixes and spec.batch_size % (2 * processes):
        raise RecipeError(
            f"mixup and cutmix take samples in pairs, and batch_size={spec.batch_size} leaves each of {processes} "
            f"processes an odd number: give a multiple of {2 * processes}"
        )


def example_of(train: Any, task: Task, model: nn.Module) -> Inputs:
    """The inputs of one sample of the training data, where the network is."""
    raw = next(iter(train)) if isinstance(train, DataLoader) else task.collate([train[0]])
    inputs = task.batch(raw).inputs
    return inputs.map(lambda x: x[:1] if x.dim() else x).beside(model)


def lists_of(items: Iterable[Any], length: int) -> Iterator[list[Any]]:
    """The items in turn, in lists of a length; the last may be shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, length)):
        yield part
