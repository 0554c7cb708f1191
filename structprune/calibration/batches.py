"""Calibration data as batches, whatever it was given as."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import IterableDataset as Stream

from ..errors import RecipeError
from ..graph.capture import Inputs

BATCH = 16  # images at a time


@dataclass(frozen=True)
class Batch:
    """The arguments of one forward call, and the labels of its images where there are some."""

    inputs: Inputs
    labels: Tensor | None = None

    @property
    def images(self) -> int:
        return next((int(x.shape[0]) for x in self.inputs.flat() if isinstance(x, Tensor) and x.dim()), 1)


def batches_of(data: Any, labels: Tensor | None = None, count: int | None = None, batch: int = BATCH) -> list[Batch]:
    """Batches of calibration data: at most `count` images.

    `data` is a tensor of images (n, ...), a `torch.utils.data.Dataset` whose items are images or (image, label), or an
    iterable of batches (a DataLoader): tensors, (images, labels) pairs, or dicts of keyword arguments.
    Raises RecipeError for anything else and for no data at all.
    """
    if isinstance(data, Tensor):
        given = (
            list(data.split(batch))
            if labels is None
            else list(zip(data.split(batch), labels.split(batch), strict=True))
        )
    elif isinstance(data, Dataset) and not isinstance(data, Stream):
        size = len(data) if count is None else min(count, len(data))  # type: ignore[arg-type]
        given = list(DataLoader(torch.utils.data.Subset(data, range(size)), batch_size=batch))
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes, Mapping)):
        given = list(itertools.islice(data, count))
    else:
        raise RecipeError(
            f"calibration data is a {type(data).__name__}: give a tensor of images, a torch Dataset, or an iterable of "
            "batches"
        )
    made, seen = [], 0
    for item in given:
        if isinstance(item, Batch):
            one = item
        elif isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(x, Tensor) for x in item):
            one = Batch(Inputs((item[0],), {}), item[1])
        else:
            one = Batch(Inputs.of(item))
        if count is not None and seen + one.images > count:
            one = _first(one, count - seen)
        if one.images:
            made.append(one)
            seen += one.images
        if count is not None and seen >= count:
            break
    if not made:
        raise RecipeError("there is no calibration data: give at least one image")
    return made


def _first(batch: Batch, count: int) -> Batch:
    size = batch.images
    inputs = batch.inputs.map(lambda x: x[:count] if x.dim() and x.shape[0] == size else x)
    return Batch(inputs, None if batch.labels is None else batch.labels[:count])
