"""Pairs of (input window, output place) of a convolution or a linear layer, with padding, stride and dilation."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..graph.layers import LayerCall


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
        """Reads off what the layer made at each row.

        Args:
            result: what the layer gave for the images of the sample
            channel: the dimension of `result` that holds the channels

        Returns:
            Shape (rows, output channels).
        """
        return outputs_at(result, channel, self.image, self.place)

    def blocks(self, weight: Tensor) -> Tensor:
        """Gives the windows as the rows of each block of a weight.

        Args:
            weight: of the layer that the sample is of

        Returns:
            Shape (blocks, rows, channels of a block × kernel).
        """
        return blocks_of(self.windows, weight)


def places_of(call: LayerCall) -> int:
    """How many output places each image of a call has."""
    if call.window is None:
        return int(call.x[0].numel() // call.x.shape[-1])
    return math.prod(call.window.size(call.x.shape[2:], call.weight.shape[2:]))


def sample(call: LayerCall, each: int, generator: torch.Generator) -> Sample:
    """Takes up to `each` windows of each image, at random output places, no place twice (see `choose` and `take`).

    Args:
        call: A call of a layer.
        each: The most windows of one image.
        generator: Of the random places.

    Returns:
        The windows, images and places, one row for each window.

    Raises:
        ValueError: `choose` can't choose places of this call.
    """
    image, place = choose(call, each, generator)
    return Sample(take(call, image, place), image, place)


def choose(call: LayerCall, each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Chooses up to `each` outputs of each image at random, no place twice.

    Args:
        call: A call of a layer.
        each: The most outputs of one image.
        generator: Of the random places.

    Returns:
        The image and the place of each row: two whole-number tensors of shape (rows,).

    Raises:
        ValueError: The layer is a transposed convolution, which has no windows of fixed size, or the input has no batch
            axis.
    """
    if call.kind == "transposed convolution":
        raise ValueError("a transposed convolution has no input window for each output place")
    x = call.x
    if x.dim() < 2 or (call.window is not None and x.dim() != call.weight.dim()):
        raise ValueError("the input has no batch axis")
    return choose_places(x.shape[0], places_of(call), each, generator)


def choose_places(images: int, total: int, each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Chooses up to `each` of `total` places of each image at random, no place twice: as `choose`, which knows how many
    there are."""
    each = min(each, total)
    if each == total:
        chosen = torch.arange(total).expand(images, -1)
    else:
        chosen = torch.rand(images, total, generator=generator).topk(each, dim=1).indices
    return torch.arange(images).repeat_interleave(each), chosen.reshape(-1)


def take(call: LayerCall, image: Tensor, place: Tensor, channels: slice = slice(None)) -> Tensor:
    """Takes the windows at some outputs of a call.

    Args:
        call: A call of a layer.
        image: The image of each row, shape (rows,).
        place: The output place of each row, shape (rows,).
        channels: The input channels that are taken; all by default.

    Returns:
        The windows, of shape (rows, channels, places of the kernel); padded places hold what the layer pads with.
    """
    x, window = call.x, call.window
    if window is None:
        return x.reshape(len(x), -1, x.shape[-1])[..., channels][image, place].unsqueeze(-1)
    kernel = call.weight.shape[2:]
    size = window.size(x.shape[2:], kernel)
    padded = F.pad(x[:, channels], [p for pair in reversed(window.padding) for p in pair], window.mode)
    corner = torch.stack(torch.unravel_index(place, size), dim=-1) * torch.tensor(window.stride)  # (rows, spatial)
    inside = torch.tensor(list(itertools.product(*(range(k) for k in kernel)))) * torch.tensor(window.dilation)
    at = corner[:, None, :] + inside[None]  # (rows, places of the kernel, spatial)
    flat = torch.zeros(at.shape[:2], dtype=torch.long)
    for d, extent in enumerate(padded.shape[2:]):
        flat = flat * extent + at[:, :, d]
    windows = padded.flatten(2)[image[:, None], :, flat]  # (rows, places of the kernel, channels)
    return windows.transpose(1, 2)


def row_bytes(call: LayerCall) -> int:
    """About what `take` takes for each row of all channels: the window, a copy in the order of the weights, and
    indices."""
    x, weight = call.x, call.weight
    if call.window is None:
        return int(2 * x.shape[-1] * x.element_size())
    return int(math.prod(weight.shape[2:]) * (2 * x.shape[1] * x.element_size() + 8 * (weight.dim() + 2)))


def outputs_at(result: Tensor, channel: int, image: Tensor, place: Tensor) -> Tensor:
    """What a layer made at (image, place), from its result for the same images: shape (rows, output channels)."""
    return result.movedim(channel, -1).reshape(result.shape[0], -1, result.shape[channel])[image, place]


def blocks_of(windows: Tensor, weight: Tensor) -> Tensor:
    """Windows as the rows of each block of `weight`: shape (blocks, rows, channels of a block × kernel)."""
    rows, channels = windows.shape[:2]
    return windows.reshape(rows, channels // weight.shape[1], -1).transpose(0, 1)
