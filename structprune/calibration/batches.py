"""Calibration data as batches, whatever it was given as."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import IterableDataset as Stream

from ..errors import RecipeError
from ..memory_limits import allocation_failed
from ..messages import shown
from ..modules import evaluating, skeleton_copy
from ..ops import Inputs

BATCH = 16  # images at a time


@dataclass(frozen=True)
class Batch:
    """The arguments of one forward call, and where there are some the labels of its images: whatever a task takes."""

    inputs: Inputs
    labels: Any = None

    @property
    def images(self) -> int:
        return next((int(x.shape[0]) for x in self.inputs.flat() if isinstance(x, Tensor) and x.dim()), 1)

    def beside(self, model: nn.Module) -> Batch:
        """Moves a batch to where a model is.

        Args:
            model: its parameters and buffers name the device

        Returns:
            The same batch on the device of the model's tensors; as it is if they are on several.
        """
        inputs = self.inputs.beside(model)
        device = next((x.device for x in inputs.flat() if isinstance(x, Tensor)), None)
        return Batch(inputs, pytree.tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, self.labels))


class Batching(Protocol):
    """How a task makes batches: of items of a dataset, and of what that or a loader gives."""

    def collate(self, items: list[Any]) -> Any: ...

    def batch(self, raw: Any) -> Batch: ...


def batches_of(data: Any, labels: Tensor | None = None, task: Batching | None = None) -> list[Batch]:
    """Makes batches of calibration data.

    Args:
        data: A tensor of images (n, ...), a `torch.utils.data.Dataset` whose items are images or (image, label), or an
            iterable of batches (a DataLoader): tensors, (images, labels) pairs, or dicts of keyword arguments.
        labels: Class numbers (n,) of a tensor of images.
        task: How items and batches are read. With one, datasets and loaders may give whatever it takes.

    Returns:
        At least one batch; of a tensor or a dataset, of up to `BATCH` images each.

    Raises:
        RecipeError: The data is something else, can't be read or is empty, or the labels do not fit.
    """
    if isinstance(data, Tensor) and not data.dim():
        raise RecipeError("calibration data is a tensor without axes: give images, of shape (n, ...)")
    if labels is not None and not labels.dim():
        raise RecipeError("labels is a tensor without axes: give one class number an image, of shape (n,)")
    if labels is not None and not (isinstance(data, Tensor) and len(labels) == len(data)):
        raise RecipeError(
            f"labels of {len(labels)} images go with a tensor of as many images, and data is a {type(data).__name__}"
            + (f" of {len(data)}" if isinstance(data, Tensor) else "; a Dataset or loader gives (image, label) itself")
        )
    if isinstance(data, Tensor):
        items = (
            list(data.split(BATCH))
            if labels is None
            else list(zip(data.split(BATCH), labels.split(BATCH), strict=True))
        )
    elif isinstance(data, (Dataset, Iterable)) and not isinstance(data, (str, bytes, Mapping)):
        whole = isinstance(data, Dataset) and not isinstance(data, Stream)
        try:
            collate = task.collate if task is not None else None
            items = list(DataLoader(data, batch_size=BATCH, collate_fn=collate) if whole else data)  # type: ignore[arg-type]
        except Exception as error:  # whatever a loader of the user's raises
            raise RecipeError(f"the calibration data can't be read: {type(error).__name__}: {error}") from error
    else:
        raise RecipeError(
            f"calibration data is a {type(data).__name__}: give a tensor of images, a torch Dataset, or an iterable of "
            "batches"
        )
    batches = []
    for item in items:
        one = _batch_of(item, None if isinstance(data, Tensor) else task)
        if not any(isinstance(x, Tensor) for x in one.inputs.flat()):
            raise RecipeError(
                f"a batch of the calibration data holds no tensor ({shown(item)}): give tensors of images"
            )
        if one.images:
            batches.append(_checked(one))
    if not batches:
        raise RecipeError("there is no calibration data: give at least one image")
    return batches


def _batch_of(item: Any, task: Batching | None) -> Batch:
    """The batch that an item of a dataset or loader is, as the task takes it if there is one."""
    if isinstance(item, Batch):
        return item
    if task is not None:
        return task.batch(item)
    if isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(x, Tensor) for x in item):
        return Batch(Inputs((item[0],), {}), item[1])
    return Batch(Inputs.of(item))


def batches_for(model: nn.Module, data: Any, labels: Tensor | None = None, task: Batching | None = None) -> list[Batch]:
    """Makes batches as `batches_of` does, where `model` is, and checks that it runs on them.

    It is run on one batch of each kind of shape and dtype, without values.

    Args:
        model: The network that the data is for.
        data: As `batches_of` takes it.
        labels: Class numbers (n,) of a tensor of images.
        task: How items and batches are read.

    Returns:
        At least one batch, on the device of the model's tensors where they are all on one.

    Raises:
        RecipeError: `batches_of` refuses the data, or the model does not run on it.
    """
    batches = [batch.beside(model) for batch in batches_of(data, labels, task)]
    kinds = set()
    for batch in batches:
        kind = tuple((x.dtype, x.shape[1:]) if isinstance(x, Tensor) else None for x in batch.inputs.flat())
        if kind in kinds:
            continue
        kinds.add(kind)
        try:
            with evaluating(skeleton_copy(model)) as copy:
                batch.inputs.call(copy)
        except Exception as error:  # whatever the model's own code raises
            if allocation_failed(error):
                continue  # the caller works in smaller parts
            reason = (str(error).strip().splitlines() or [""])[0][:300]
            raise RecipeError(
                f"{type(model).__name__} does not run on the calibration data ({type(error).__name__}: {reason}): give "
                "it as the model takes it"
            ) from error
    return batches


def _checked(batch: Batch) -> Batch:
    """The batch; raises RecipeError for values that nothing can be learned from."""
    for x in batch.inputs.flat():
        if isinstance(x, Tensor) and x.device.type == "meta":
            raise RecipeError("the calibration data is on the meta device and holds no values: give real images")
        if isinstance(x, Tensor) and not torch.isfinite(x).all():
            raise RecipeError("the calibration data holds NaN or infinite values: give finite images")
    return batch
