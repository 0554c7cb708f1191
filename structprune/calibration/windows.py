"""Pairs of (input window, output place) of a convolution or a linear layer, with padding, stride and dilation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .layers import TRANSPOSED


@dataclass(frozen=True)
class Sample:
    """`windows`, of shape (rows, input channels, places of the kernel), and for each row its image and output place.

    A layer's output at a row, less its bias, is sum_{c,k} weight[f, c, k] windows[row, c, k], each output filter f over
    the channels of its block where the convolution is grouped.
    """

    windows: Tensor
    image: Tensor
    place: Tensor

    def outputs(self, result: Tensor, channel: int) -> Tensor:
        """What the layer made at each row: shape (rows, output channels), from its result for the same images."""
        return outputs_at(result, channel, self.image, self.place)

    def blocks(self, weight: Tensor) -> Tensor:
        """The windows as the rows of each block of `weight`: shape (blocks, rows, channels of a block × kernel)."""
        return blocks_of(self.windows, weight)


def places_of(op: str, args: Sequence[Any]) -> int:
    """How many output places each image of a call has."""
    x = args[0]
    if op == "linear":
        return int(x[0].numel() // x.shape[-1])
    count = 1
    for size in _output_size(args)[1]:
        count *= size
    return count


def sample(op: str, args: Sequence[Any], each: int, generator: torch.Generator) -> Sample:
    """Up to `each` windows of each image, at random output places, no place twice (see `choose` and `take`)."""
    image, place = choose(op, args, each, generator)
    return Sample(take(op, args, image, place), image, place)


def choose(op: str, args: Sequence[Any], each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The image and the place of up to `each` outputs of each image, no place twice.

    `args` are those of the call. Raises ValueError for transposed convolutions, which have no windows of fixed size,
    and for inputs without a batch axis.
    """
    if op in TRANSPOSED:
        raise ValueError("a transposed convolution has no input window for each output place")
    x = args[0]
    spatial = 0 if op == "linear" else args[1].dim() - 2
    if x.dim() < 2 or (spatial and x.dim() != spatial + 2):
        raise ValueError("the input has no batch axis")
    total, images = places_of(op, args), x.shape[0]
    each = min(each, total)
    if each == total:
        chosen = torch.arange(total).expand(images, -1)
    else:
        chosen = torch.rand(images, total, generator=generator).topk(each, dim=1).indices
    return torch.arange(images).repeat_interleave(each), chosen.reshape(-1)


def take(op: str, args: Sequence[Any], image: Tensor, place: Tensor, channels: slice = slice(None)) -> Tensor:
    """The windows at the outputs (image, place) of some channels: shape (rows, channels, places of the kernel)."""
    x = args[0]
    if op == "linear":
        return x.reshape(len(x), -1, x.shape[-1])[..., channels][image, place].unsqueeze(-1)
    padding, size, stride, dilation = _output_size(args)
    kernel = args[1].shape[2:]
    padded = F.pad(x[:, channels], [p for pair in reversed(padding) for p in pair])
    corner = torch.stack(torch.unravel_index(place, size), dim=-1) * torch.tensor(stride)  # (rows, spatial)
    inside = torch.tensor(list(itertools.product(*(range(k) for k in kernel)))) * torch.tensor(dilation)
    at = corner[:, None, :] + inside[None]  # (rows, places of the kernel, spatial)
    flat = torch.zeros(at.shape[:2], dtype=torch.long)
    for d, extent in enumerate(padded.shape[2:]):
        flat = flat * extent + at[:, :, d]
    taken = padded.flatten(2)[image[:, None], :, flat]  # (rows, places of the kernel, channels)
    return taken.transpose(1, 2)


def row_bytes(op: str, args: Sequence[Any]) -> int:
    """About what `take` takes for each row of all channels: the window, a copy in the order of the weights, and
    indices."""
    x = args[0]
    if op == "linear":
        return int(2 * x.shape[-1] * x.element_size())
    kernel = math.prod(args[1].shape[2:])
    return int(kernel * (2 * x.shape[1] * x.element_size() + 8 * (args[1].dim() + 2)))


def outputs_at(result: Tensor, channel: int, image: Tensor, place: Tensor) -> Tensor:
    """What a layer made at (image, place), from its result for the same images: shape (rows, output channels)."""
    return result.movedim(channel, -1).reshape(result.shape[0], -1, result.shape[channel])[image, place]


def blocks_of(windows: Tensor, weight: Tensor) -> Tensor:
    """Windows as the rows of each block of `weight`: shape (blocks, rows, channels of a block × kernel)."""
    rows, channels = windows.shape[:2]
    return windows.reshape(rows, channels // weight.shape[1], -1).transpose(0, 1)


def _output_size(args: Sequence[Any]) -> tuple[list[tuple[int, int]], list[int], list[int], list[int]]:
    """Padding before and after, size of the output, stride and dilation, for each spatial axis of a convolution."""
    x, weight = args[0], args[1]
    rank = weight.dim() - 2
    stride, padding, dilation = (list(_spread(args, i, rank, d)) for i, d in ((3, 1), (4, 0), (5, 1)))
    kernel = weight.shape[2:]
    pairs = []
    for d in range(rank):
        reach = dilation[d] * (kernel[d] - 1)
        if padding[d] == "same":
            pairs.append((reach // 2, reach - reach // 2))
        else:
            pairs.append((0, 0) if padding[d] == "valid" else (int(padding[d]), int(padding[d])))
    size = [
        (x.shape[d - rank] + sum(pairs[d]) - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in range(rank)
    ]
    return pairs, size, stride, dilation


def _spread(args: Sequence[Any], position: int, rank: int, default: int) -> Sequence[Any]:
    value = args[position] if len(args) > position else default
    if isinstance(value, (list, tuple)):
        return value if len(value) == rank else list(value) * rank
    return [value] * rank
