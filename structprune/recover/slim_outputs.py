"""What a layer of the slim network is to make, told by what the dense network's layer makes.

The BatchNorm behind it may have other statistics by now, and may be that of several channels that were merged: these
are to make the mean of what those made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..calibration import WritableNetwork
from ..graph.layers import Layer, Norm
from ..records import Plan

CLOSED = 0.01  # of the median scale of a BatchNorm's channels


def keeps(plan: Plan, key: str, dim: int) -> Any:
    """The kept indices of an axis of a parameter, None where all stay."""
    return plan.keep.get(key, {}).get(str(dim))


def channels_of(indices: Any, axis: int, total: int) -> list[int]:
    """Indices of an axis of a weight as channels.

    Blocks of a grouped convolution come one after the other, each with its own indices or all with the same, `axis` of
    them in a block. -1 stays.
    """
    rows = indices if isinstance(indices[0], list) else [indices] * (total // axis)
    return [i if i < 0 else block * (total // len(rows)) + i for block, row in enumerate(rows) for i in row]


def merged_into(plan: Plan, key: str, dim: int, axis: int, total: int) -> Tensor | None:
    """The channel that each channel is merged into, itself if it stays and -1 if it is dropped; None without merges."""
    entry = plan.merges["axes"].get(key, {}).get(str(dim)) if plan.merges is not None else None
    return None if entry is None else torch.tensor(channels_of(entry["into"], axis, total))


def cluster_means(values: Tensor, into: Tensor) -> Tensor:
    """For each channel (the last axis) the mean of all that are merged into the same; 0 if it is dropped."""
    members = (into >= 0).nonzero().flatten()
    places = into[members].to(values.device)
    total = torch.zeros_like(values).index_add_(-1, places, values[..., members.to(values.device)])
    counts = torch.bincount(into[members], minlength=len(into)).clamp_min(1).to(values.device)
    means = (total / counts)[..., into.clamp_min(0).to(values.device)]
    return means * (into >= 0).to(means)


def slim_outputs(
    layer: Layer, dense: WritableNetwork, slim: WritableNetwork, plan: Plan, y: Tensor, *, offsets: bool = False
) -> Tensor:
    """Turns what the dense layer makes into what the slim layer must make.

    Then its BatchNorm makes of it what the dense one makes of `y`, or the mean of that over merged channels.

    Args:
        layer: The layer.
        dense: The dense network.
        slim: The slim network.
        plan: By which it was cut.
        y: The dense layer's outputs, shape (..., channels).
        offsets: Whether `y` is added to outputs, so that no mean is to be taken from it.

    Returns:
        Shape (..., channels of the slim layer).
    """
    if layer.norm is None:
        return keep_channels(layer, dense, plan, y)
    there, here = _affine(dense, layer.norm), _affine(slim, layer.norm)
    if _find_clusters(layer, dense, plan, y) is None:  # the weights of both BatchNorms are the same, and may be zero
        there, here = (_statistics(net, layer.norm) for net in (dense, slim))
    y = keep_channels(layer, dense, plan, y * there[0] + (0 if offsets else there[1]))
    mean = slim.state[layer.norm.mean].double()
    outputs = (y if offsets else y - here[1]) / here[0]
    return torch.where(here[0] == 0, torch.zeros_like(mean) if offsets else mean, outputs)


def keep_channels(layer: Layer, dense: WritableNetwork, plan: Plan, y: Tensor) -> Tensor:
    """The channels that a cut leaves of what has the output channels of a layer, or their clusters' means.

    Args:
        layer: The layer.
        dense: The dense network.
        plan: By which it was cut.
        y: Of the dense network, shape (..., channels).

    Returns:
        Shape (..., channels of the slim layer).
    """
    into = _find_clusters(layer, dense, plan, y)
    y = y if into is None else cluster_means(y, into)
    dim = 1 if layer.transposed else 0
    kept = keeps(plan, layer.weight, dim)
    return y if kept is None else y[..., channels_of(kept, dense.state[layer.weight].shape[dim], y.shape[-1])]


def undo_norm(layer: Layer, slim: WritableNetwork, y: Tensor) -> Tensor:
    """What a slim layer has to make on top so that its BatchNorm, if there is one, adds `y` (..., channels). Channels
    that the BatchNorm all but closes can't add anything to speak of: nothing is asked of them."""
    if layer.norm is None:
        return y
    scale = _affine(slim, layer.norm)[0].to(y)
    closed = scale.abs() <= CLOSED * scale.abs().median()
    return torch.where(closed, torch.zeros_like(y), y / scale)


def _find_clusters(layer: Layer, dense: WritableNetwork, plan: Plan, y: Tensor) -> Tensor | None:
    dim = 1 if layer.transposed else 0
    return merged_into(plan, layer.weight, dim, dense.state[layer.weight].shape[dim], y.shape[-1])


def _statistics(network: WritableNetwork, norm: Norm) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BatchNorm without its weights."""
    scale = (network.state[norm.variance].double() + norm.eps).rsqrt()
    return scale, -scale * network.state[norm.mean].double()


def _affine(network: WritableNetwork, norm: Norm) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BatchNorm."""
    scale, shift = _statistics(network, norm)
    if norm.weight:
        weight = network.state[norm.weight].detach().double()
        scale, shift = scale * weight, shift * weight
    return scale, shift + network.state[norm.bias].detach().double() if norm.bias else shift
