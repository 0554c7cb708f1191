"""What is shown to criteria, held under a bound of memory: fewer rows, batches in portions, consumers in parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..calibration import Batch
from ..calibration.rebatching import follows
from ..memory_limits import amount
from .views import Consumer

SHOWN = 1 / 4  # of the memory for windows, and for activations
SQUARES = 1 / 2  # for matrices of (inputs, inputs)
COPIES = 5  # of such a matrix, while one is made, solved and kept


def portions(batch: Batch, images: int) -> Iterator[Batch]:
    """A batch, so many images at a time."""
    total = batch.images
    if images >= total or not follows(batch):
        yield batch
        return
    for start in range(0, total, max(1, images)):

        def part(x: Tensor, start: int = start) -> Tensor:
            return x[start : start + images] if x.dim() and len(x) == total else x

        labels = pytree.tree_map(lambda x, part=part: part(x) if isinstance(x, Tensor) else x, batch.labels)
        yield Batch(batch.inputs.map(part), labels)


def in_parts(consumer: Consumer, limit: float, together: bool = True) -> list[Consumer]:
    """A consumer, or several of some of its channels each, so that their square matrices, all `together` or each alone,
    take no more than `limit` bytes: what two channels of different parts have in common is left out of account then."""
    positions, places = consumer.windows.shape[1:]
    excess = COPIES * 8.0 * (positions * places) ** 2 / max(limit, 1.0)
    count = min(positions, math.ceil(excess if together else math.sqrt(excess)))
    if count <= 1:
        return [consumer]
    pieces = zip(
        consumer.index.tensor_split(count),
        consumer.windows.tensor_split(count, dim=1),
        consumer.weight.tensor_split(count, dim=1),
        strict=True,
    )
    return [Consumer(consumer.module, index, windows, weight) for index, windows, weight in pieces]


def joined(blocks: Sequence[tuple[Tensor, Tensor]], positions: int) -> tuple[Tensor, Tensor]:
    """The weight and the offsets of a whole layer from those of its blocks, one after the other, each of `positions`
    input channels in one or several parts."""
    weights: list[Tensor] = []
    offsets: list[Tensor] = []
    row: list[tuple[Tensor, Tensor]] = []
    for piece in blocks:
        row.append(piece)
        if sum(weight.shape[1] for weight, _ in row) == positions:
            weights.append(torch.cat([weight for weight, _ in row], dim=1))
            offsets.append(torch.stack([offset for _, offset in row]).sum(0))
            row = []
    return torch.cat(weights), torch.cat(offsets)


def kept_to(notes: Mapping[str, str], memory: float) -> list[str]:
    """One note of what was done to keep to the memory, of what was done for each module."""
    if not notes:
        return []
    first = " ".join(next(iter(notes.items())))
    return [
        f"to keep to memory ({amount(memory)}), {first}" + (f", and {len(notes) - 1} more so" if len(notes) > 1 else "")
    ]
