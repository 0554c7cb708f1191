"""The dense network in which each unit that stays stands for those that are merged into it: what `prune` then slices.

Of each cluster the unit that stays computes the mean of what its members computed: in what makes channels, its slices
become the means. In what consumes channels they become the sums. All else keeps its numbers, and is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..modules import replace_tensors, skeleton_copy, tensors
from ..plan_schema import MergedNorm, Merges
from ..records import Plan


def merged(model: nn.Module, plan: Plan) -> nn.Module:
    """Makes the network of the dense shapes whose units that stay stand for those that are merged into them.

    Args:
        model: The dense network, which is left as it was.
        plan: The plan; without merges the network is a plain copy.

    Returns:
        A copy. Sliced by the plan it is the slim network.
    """
    copy = skeleton_copy(model)
    replace_tensors(copy, merged_tensors(tensors(model), plan))
    return copy


def merged_tensors(state: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Merges tensors as a plan says, computed in float64.

    Args:
        state: The dense tensors by key.
        plan: The plan.

    Returns:
        Those of which something is merged, of their dense shapes and dtypes.
    """
    merges = plan.merges
    if merges is None:
        return {}
    finer = {key: _finer(state[key].detach()) for key in merges["axes"]}
    for norm in merges["norms"]:
        _level(finer, norm, merges)
    for key, axes in merges["axes"].items():
        for axis, entry in axes.items():
            finer[key] = _merged_along(finer[key], int(axis), entry["into"], entry["by"])
    return {key: tensor.to(state[key].dtype) for key, tensor in finer.items()}


def _finer(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _merged_along(tensor: Tensor, axis: int, into: Sequence[Any], by: Literal["mean", "sum"]) -> Tensor:
    """The tensor with mean or sum of each cluster in the place that stays; blocks of axis 0 have their own clusters."""
    if isinstance(into[0], list):
        blocks = tensor.chunk(len(into))
        return torch.cat([_merged_along(b, axis, line, by) for b, line in zip(blocks, into, strict=True)])
    places = torch.tensor(into, device=tensor.device)
    members, counts = torch.nonzero(places >= 0).flatten(), _counts(places)
    several = torch.nonzero(counts > 1).flatten()
    total = torch.zeros_like(tensor).index_add_(axis, places[members], tensor.index_select(axis, members))
    chosen = total.index_select(axis, several)
    if by == "mean":
        chosen = chosen / _along(counts[several], axis, tensor)
    return tensor.index_copy(axis, several, chosen)


def _level(state: dict[str, Tensor], norm: MergedNorm, merges: Merges) -> None:
    """Gives a BatchNorm's channels of a cluster one scale in evaluation, without changing what any of them computes.

    Filter and scale are then merged as one. Where a layer's filters can take the factors, the channels get the variance
    and the weight that all of them together have, so that what they are merged into varies as they did. Else the
    weights take the factors, over a common mean and variance.
    """
    line = merges["axes"][norm["mean"]]["0"]["into"]
    places = torch.tensor(line, device=state[norm["mean"]].device)
    mean, variance = state[norm["mean"]], state[norm["variance"]] + norm["eps"]
    weight = state[norm["weight"]] if norm["weight"] else torch.ones_like(mean)
    scale = weight / variance.sqrt()
    layer = norm["layer"]
    new: dict[str, Tensor] = {}
    if layer is not None:
        squares, gain = _mean_of_cluster(scale**2, places), _mean_of_cluster(weight**2, places)
        some = squares > 0
        factor = torch.where(some, scale / squares.sqrt(), 1.0)
        common = torch.where(some, gain / squares, _mean_of_cluster(variance, places))
        new[norm["mean"]] = mean * factor
        if norm["weight"]:
            new[norm["weight"]] = (squares * common).sqrt()
        for key, axis in ((layer["weight"], int(layer["axis"])), (layer["bias"], 0)):
            if key:
                new[key] = state[key] * _along(factor, axis, state[key])
    else:
        assert norm["weight"]
        assert norm["bias"]
        common, centre = _mean_of_cluster(variance, places), _mean_of_cluster(mean, places)
        new[norm["mean"]] = centre
        new[norm["weight"]] = scale * common.sqrt()
        new[norm["bias"]] = state[norm["bias"]] + scale * (centre - mean)
    new[norm["variance"]] = (common - norm["eps"]).clamp_min(0)
    alone = _counts(places)[places.clamp_min(0)] < 2
    for key, tensor in new.items():
        axis = int(layer["axis"]) if layer is not None and key == layer["weight"] else 0
        state[key] = torch.where(_along(alone | (places < 0), axis, tensor), state[key], tensor)


def _along(vector: Tensor, axis: int, tensor: Tensor) -> Tensor:
    """A vector as a tensor that broadcasts along an axis of another."""
    return vector.reshape([-1 if d == axis else 1 for d in range(tensor.dim())])


def _counts(places: Tensor) -> Tensor:
    return torch.bincount(places[places >= 0], minlength=len(places))


def _mean_of_cluster(vector: Tensor, places: Tensor) -> Tensor:
    """For each position the mean of its cluster; itself where it is dropped."""
    members = places >= 0
    total = torch.zeros_like(vector).index_add_(0, places[members], vector[members])
    return torch.where(members, (total / _counts(places).clamp_min(1))[places.clamp_min(0)], vector)
