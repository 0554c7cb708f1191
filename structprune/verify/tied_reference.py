"""The tied network: the dense one in which merged units all compute the mean of what they computed.

Its consumers have their own columns, of all units, so that equal inputs add up as they do in the slim network, which
has the sum of the columns. What is dropped is masked. It is made from the plan's `merges` and `keep` by arithmetic of
its own, not by that of `surgery.merging`, whose mistakes it is to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..modules import replace_tensors, skeleton_copy, tensors
from ..ops import Inputs
from ..plan_schema import MergedNorm
from ..records import Plan
from ..surgery import merged
from .comparison import Comparison
from .masked_reference import masked
from .other_weights import random_weights
from .running import compare_finest


def tied(model: nn.Module, plan: Plan) -> nn.Module:
    """Makes the tied network of a plan that merges.

    Args:
        model: The dense network, which is left as it was.
        plan: The plan; its `merges`, `keep` and `statistics` are all that is read.

    Returns:
        A copy, of the dense shapes. What is dropped is masked in it.
    """
    merges = plan.merges
    assert merges is not None
    state = tensors(model)
    new = {key: state[key].detach().double() for key in merges["axes"]}
    for norm in merges["norms"]:
        _scale_into_filters(new, norm, _clusters(merges["axes"][norm["mean"]]["0"]["into"]))
    for key, axes in merges["axes"].items():
        for axis, entry in axes.items():
            if entry["by"] == "mean":
                new[key] = _means(new[key], int(axis), entry["into"])
    copy = skeleton_copy(model)
    replace_tensors(copy, {key: tensor.to(state[key].dtype) for key, tensor in new.items()})
    keep: dict[str, Any] = {key: dict(axes) for key, axes in plan.keep.items()}
    for key, axes in merges["axes"].items():
        for axis, entry in axes.items():
            keep[key][axis] = _alive(entry["into"])
    return masked(copy, replace(plan, keep=keep))


def compare_tied(comparison: Comparison, model: nn.Module, plan: Plan, batches: list[Inputs]) -> None:
    """Compares the tied network with the merged one, both unrounded in float64, with their own and random weights.

    Args:
        comparison: Fails where they differ.
        model: The dense network.
        plan: A plan that merges.
        batches: Inputs.
    """
    dense = {key: tensor.detach() for key, tensor in tensors(model).items()}
    for name, weights in (("its own", dense), ("random", {**dense, **random_weights(model)})):
        finer = skeleton_copy(model)
        floating = {key: x.double() for key, x in weights.items() if x.is_floating_point()}
        replace_tensors(finer, {**weights, **floating})
        between = Comparison.of(torch.float64, proves=True)
        compare_finest(between, tied(finer, plan), masked(merged(finer, plan), plan), batches)
        if between.failed:
            reason = f"with {name} weights the network whose merged channels are tied differs: {between.detail}"
            comparison.fail(reason, broken=between.broken)
        elif not between.passed and name == "its own":
            comparison.skip(f"the network whose merged channels are tied: {between.detail}")


def _scale_into_filters(state: dict[str, Tensor], norm: MergedNorm, clusters: Mapping[int, list[int]]) -> None:
    """Moves a BatchNorm's scales of merged channels into the layer's filters, or into its weight, over no statistic."""
    layer = norm["layer"]
    for members in clusters.values():
        for i in members if len(members) > 1 else ():
            scale = (state[norm["variance"]][i] + norm["eps"]).rsqrt()
            if norm["weight"]:
                scale = scale * state[norm["weight"]][i]
            state[norm["variance"]][i] = 1 - norm["eps"]
            if layer is not None:
                state[layer["weight"]].select(int(layer["axis"]), i).mul_(scale)
                if layer["bias"]:
                    state[layer["bias"]][i] *= scale
                state[norm["mean"]][i] *= scale
                scale = torch.ones(())
            else:
                state[norm["bias"] or ""][i] -= scale * state[norm["mean"]][i]
                state[norm["mean"]][i] = 0
            if norm["weight"]:
                state[norm["weight"]][i] = scale


def _clusters(into: Any) -> dict[int, list[int]]:
    """The positions that are merged into each that stays."""
    clusters: dict[int, list[int]] = {}
    for place, target in enumerate(into):
        if target >= 0:
            clusters.setdefault(target, []).append(place)
    return clusters


def _means(tensor: Tensor, axis: int, into: Any) -> Tensor:
    """The tensor with the mean of each cluster in the places of all its members."""
    result = tensor.clone()
    lines = into if isinstance(into[0], list) else [into]
    size = len(tensor) // len(lines)
    for own, block, line in zip(tensor.split(size), result.split(size), lines, strict=True):
        for members in _clusters(line).values():
            mean = torch.stack([own.select(axis, i) for i in members]).mean(0)
            for i in members if len(members) > 1 else ():
                block.select(axis, i).copy_(mean)
    return result


def _alive(into: Any) -> Any:
    """The positions of an axis that stay or are merged into such."""
    if isinstance(into[0], list):
        return [_alive(line) for line in into]
    return [place for place, target in enumerate(into) if target >= 0]
