"""Seeded splits that keep each class's share, and calibration samples drawn from training data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset

from ..calibration.batches import BATCH, Batch
from ..errors import RecipeError
from ..tasks.task import Task
from .loading import loader_of

VALIDATION = 0.1  # of the training data, where something is to choose and no split for it is given


def split_off(count: int, share: float, seed: int, labels: Sequence[int] | None = None) -> tuple[list[int], list[int]]:
    """Splits indices into those that stay and those that are split off, both in rising order.

    Args:
        count: how many samples there are.
        share: of each class (of all samples without labels), how much is split off: rounded, at least one of two or
            more, and none of a class with one sample.
        seed: decides which.
        labels: the class of each sample.

    Returns:
        The indices that stay, and the indices that are split off.
    """
    rng = np.random.default_rng((seed, 2))
    classes = np.zeros(count, dtype=int) if labels is None else np.asarray(labels)
    off: list[int] = []
    for name in np.unique(classes):
        members = np.flatnonzero(classes == name)
        if len(members) > 1:
            count_off = min(max(1, round(share * len(members))), len(members) - 1)
            off += rng.permutation(members)[:count_off].tolist()
    gone = set(off)
    return [i for i in range(count) if i not in gone], sorted(off)


def subset(dataset: Any, indices: Sequence[int]) -> Dataset:
    return Subset(dataset, list(indices))


def calibrated(dataset: Any, images: int, seed: int, task: Task, what: str) -> list[Batch]:
    """Batches of `images` samples of a dataset, drawn by `seed`. Raises RecipeError if it has fewer."""
    if images > len(dataset):
        raise RecipeError(f"data.calibration.images={images}: {what} has {len(dataset)} to take them from")
    chosen = np.random.default_rng((seed, 1)).permutation(len(dataset))[:images]
    return [task.batch(raw) for raw in loader_of(Subset(dataset, chosen.tolist()), BATCH, task.collate)]
