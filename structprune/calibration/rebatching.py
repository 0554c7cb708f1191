"""Samples put into batches of another size, or thinned out, without a change to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..ops import Inputs
from .batches import BATCH, Batch


def batches_from(images: Tensor, labels: Tensor | None = None) -> list[Batch]:
    """Batches of `BATCH` images (n, ...), with labels (n,) where there are some."""
    parts = images.split(BATCH)
    marks = [None] * len(parts) if labels is None else labels.split(BATCH)
    return [Batch(Inputs((part,), {}), mark) for part, mark in zip(parts, marks, strict=True)]


def one_batch(batches: Sequence[Batch]) -> Batch:
    """All batches as one; raises ValueError where their tensors do not fit behind each other."""
    specs, columns = set(), []
    for batch in batches:
        if not follows(batch):
            raise ValueError("labels that are not one row an image")
        leaves, spec = pytree.tree_flatten((batch.inputs.args, batch.inputs.kwargs, batch.labels))
        specs.add(str(spec))
        columns.append(leaves)
    if len(specs) != 1:
        raise ValueError("batches of different structure")
    joined = []
    for parts in zip(*columns, strict=True):
        if not all(isinstance(x, Tensor) and x.dim() and x.shape[1:] == parts[0].shape[1:] for x in parts):
            if not all(x is parts[0] or (not isinstance(x, Tensor) and x == parts[0]) for x in parts):
                raise ValueError("batches of different shapes")
            joined.append(parts[0])
        else:
            joined.append(torch.cat(parts))
    args, kwargs, labels = pytree.tree_unflatten(joined, spec)
    return Batch(Inputs(args, kwargs), labels)


def follows(batch: Batch) -> bool:
    """Whether labels can be cut where images are: tensors of one row an image, which a detector's boxes are not."""
    leaves = pytree.tree_leaves(batch.labels)
    return all(isinstance(x, Tensor) and x.dim() > 0 and len(x) == batch.images for x in leaves if x is not None)


def rebatched(batches: Sequence[Batch], size: int, most: int | None = None) -> list[Batch]:
    """The same samples in batches of `size`, the first `most` of them; as they are where they can't be put together."""
    try:
        whole = one_batch(batches)
    except ValueError:
        kept, count = [], 0
        for batch in batches:
            if most is None or count < most:
                kept.append(batch)
            count += batch.images
        return kept
    end = whole.images if most is None else min(most, whole.images)
    return [rows(whole, slice(start, min(start + size, end))) for start in range(0, end, size)]


def thinned(batches: Sequence[Batch], step: int) -> list[Batch]:
    """Every `step`th sample, in batches of `BATCH`; every `step`th batch where they can't be put together."""
    try:
        whole = one_batch(batches)
    except ValueError:
        return list(batches[::step])
    return rebatched([rows(whole, slice(None, None, step))], BATCH)


def rows(batch: Batch, chosen: slice) -> Batch:
    """Some samples of a batch, with their labels; its tensors are views of the batch's."""

    def cut(x: Any) -> Any:
        return x[chosen] if isinstance(x, Tensor) and x.dim() else x

    return Batch(batch.inputs.map(cut), pytree.tree_map(cut, batch.labels))
