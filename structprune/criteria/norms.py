"""Criteria by weight norm, and chance."""

from __future__ import annotations

import torch
from torch import Tensor

from .registry import criterion
from .views import GroupView


@criterion(
    "l1",
    "sum of absolute weights of the leading layer's filters",
    source="Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1",
    combine="leading",
)
def l1(group: GroupView) -> list[Tensor]:
    """s_j = sum |F_j| over the kernels of filter j of the layer that makes the channels.

    Where layers are coupled by a shortcut, the projection shortcut decides for all (section 3.3): that is the group's
    leading layer. Units that it does not make are scored by the first layer that does. Each filter is ranked
    "independently" of what is pruned before it. Scores compare filters of one layer, not of different layers.
    """
    return [group.member(weights, weights.sums(weights.tensor.abs())) for weights in group.filters()]


@criterion(
    "l1_greedy",
    "the same, without the kernels of inputs that are removed already, layer by layer from the input",
    source="Li et al., ICLR 2017, section 3.2, the greedy strategy",
    needs=("widths",),
    combine="leading",
    sequential=True,
)
def l1_greedy(group: GroupView) -> list[Tensor]:
    """`l1` on the already pruned network: kernels for removed inputs do not count."""
    return l1(group)


@criterion(
    "l2",
    "Euclidean norm of the leading layer's filters",
    source="He et al., Soft Filter Pruning, IJCAI 2018, equation 2 with p = 2",
    combine="leading",
)
def l2(group: GroupView) -> list[Tensor]:
    """‖F_j‖₂ of the filters of the layer that makes the channels."""
    return [group.member(weights, weights.sums(weights.tensor.square())).sqrt() for weights in group.filters()]


@criterion(
    "group_l1",
    "sum of absolute weights over every coupled filter and kernel; not Li et al.'s method",
    source="after Fang et al., DepGraph, CVPR 2023, section 3.3, without its normalisation",
)
def group_l1(group: GroupView) -> Tensor:
    """The L1 norm of everything that goes with a unit: all coupled filters, depthwise filters and kernels; biases,
    normalisation and statistics are left out."""
    return _over_the_group(group, torch.abs)


@criterion(
    "group_l2",
    "Euclidean norm over every coupled filter and kernel",
    source="after Fang et al., DepGraph, CVPR 2023, equation 4, without its learned shrinkage",
)
def group_l2(group: GroupView) -> Tensor:
    """The L2 norm of everything that goes with a unit."""
    return _over_the_group(group, torch.square).sqrt()


def _over_the_group(group: GroupView, size: object) -> Tensor:
    scores = torch.zeros(group.units, dtype=torch.float64)
    for weights in group.weights:
        if weights.role in ("filter", "passed", "consumer"):
            scores += group.per_unit(weights, weights.sums(size(weights.tensor)))  # type: ignore[operator]
    return scores


@criterion("random", "chance, under the seed: what any other criterion must beat", source="the usual baseline")
def random(group: GroupView) -> Tensor:
    """Uniform random numbers."""
    return torch.rand(group.units, generator=group.generator, dtype=torch.float64)
