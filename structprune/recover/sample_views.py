"""Calibration samples to train on: some are held out, the others are drawn in small batches, other views each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..calibration import Batch
from ..calibration.rebatching import one_batch, rows
from ..ops import Inputs

RUNS = 24  # of samples that follow each other, as those of one file or one class do
EACH = 6  # of so many runs one is held out
LEAST = 4  # samples, under which none can be held out


class Samples:
    """The samples of calibration batches: one by one where they fit behind each other, else batch by batch."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        whole = [Batch(batch.inputs) for batch in batches]
        self.apart = all(_has_rows(batch) for batch in whole)
        parts = [rows(batch, slice(i, i + 1)) for batch in whole for i in range(batch.images)] if self.apart else whole
        if self.apart:
            try:
                one_batch([rows(batch, slice(0, 1)) for batch in whole])
            except ValueError:  # images of several sizes
                self.apart, parts = False, whole
        runs = min(RUNS, len(parts))
        held = [(i * runs // len(parts)) % EACH == EACH // 2 for i in range(len(parts))]
        self.held_out = [part for part, out in zip(parts, held, strict=True) if out]
        self.trained_on = [part for part, out in zip(parts, held, strict=True) if not out]

    def epoch(self, size: int, generator: torch.Generator) -> Iterator[Inputs]:
        """All samples that are not held out once, in another order each time."""
        order = torch.randperm(len(self.trained_on), generator=generator).tolist()
        yield from _joined([self.trained_on[i] for i in order], size if self.apart else 1)

    def steps(self, size: int) -> int:
        """How many batches an epoch has."""
        return -(-len(self.trained_on) // (size if self.apart else 1))

    def unseen(self, size: int) -> Iterator[Inputs]:
        """Those that are held out, in order."""
        yield from _joined(self.held_out, size if self.apart else 1)


def _has_rows(batch: Batch) -> bool:
    return all(len(x) == batch.images for x in batch.inputs.flat() if isinstance(x, Tensor) and x.dim())


def _joined(parts: Sequence[Batch], size: int) -> Iterator[Inputs]:
    for start in range(0, len(parts), size):
        chosen = parts[start : start + size]
        yield (one_batch(chosen) if len(chosen) > 1 else chosen[0]).inputs


def other_views(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Other views of the same samples: the dense network says what should become of them, so any will do.

    Images (samples, channels, height, width) are flipped and cropped, each by itself and all that belong to one sample
    alike. In half of the samples of whatever kind another shines through. Whole numbers, of which there is no mixture,
    stay as they are, and all beside them.
    """
    tensors = [x for x in inputs.flat() if isinstance(x, Tensor) and x.dim()]
    if not tensors or not all(x.is_floating_point() for x in tensors):
        return inputs
    count = len(tensors[0])

    def uniform() -> Tensor:
        return torch.rand(count, generator=generator)

    window = _windows(uniform)
    share = torch.where(uniform() < 0.5, torch.ones(count), uniform())

    def view(x: Tensor) -> Tensor:
        if not x.dim():
            return x
        if x.dim() == 4:
            grid = F.affine_grid(window.to(x), list(x.shape), align_corners=False)
            x = F.grid_sample(x, grid, align_corners=False, padding_mode="reflection")
        own = share.to(x).reshape(-1, *[1] * (x.dim() - 1))
        return own * x + (1 - own) * x.roll(1, 0)

    return inputs.map(view)


def _windows(uniform: Callable[[], Tensor]) -> Tensor:
    """What `affine_grid` takes (samples, 2, 3): crops of half of each side or more, half of them flipped."""
    side, stretch, mirror = 0.5 + 0.5 * uniform(), 0.8 + 0.4 * uniform(), torch.where(uniform() < 0.5, -1.0, 1.0)
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    theta = torch.zeros(len(side), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * mirror, height
    theta[:, 0, 2], theta[:, 1, 2] = (1 - width) * (2 * uniform() - 1), (1 - height) * (2 * uniform() - 1)
    return theta
