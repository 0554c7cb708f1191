"""Criteria from what flows through the channels on calibration images. Each is given one batch at a time; the
framework averages over all images."""

from __future__ import annotations

import torch
from torch import Tensor

from ..memory_limits import LIMIT, amount
from .registry import Unscored, criterion
from .views import Activation, GroupView


@criterion(
    "variance",
    "variance that a channel passes on to its consumers: of its activation, times its kernels' energy",
    source="first term of Luo & Wu, Neural Network Pruning with Residual-Connections, 2020; see also Jiang et al. 2019",
    needs=("moments",),
    combine="sum",
)
def variance(group: GroupView) -> list[Tensor]:
    """Var(x_c) · Σ w², over the kernels that read channel c, each consumer's divided by what all its channels pass on.

    A channel whose activation hardly varies can be replaced by its mean. Where nothing with weights consumes the
    channels: their variance.
    """
    return [group.member(a, shares(a)) for a in group.activations]


def shares(activation: Activation) -> Tensor:
    """What each position passes on, as a share of the layer's whole: shape (positions,)."""
    assert activation.variance is not None
    passed = activation.variance.double().cpu()
    if activation.weight is not None:
        weight = activation.weight
        energy = weight.sums(weight.tensor.double().square()).cpu()
        passed = passed * energy.repeat(len(passed) // len(energy))  # blocks may keep the same places
    return passed / passed.sum().clamp_min(1e-300)


@criterion(
    "bn_variance",
    "the same with the variance that BatchNorms tell of the training data: no images are needed",
    source="as `variance`, with the channel's moments from its BatchNorm's γ and β",
    needs=("expected",),
    combine="sum",
)
def bn_variance(group: GroupView) -> list[Tensor]:
    """`variance` without data: Var a(z) for z ~ N(β, γ²), a being the activation between BatchNorm and consumer.

    Calibration images show little of what a network was trained on; its BatchNorms have seen all of it.
    """
    known = [a for a in group.activations if a.variance is not None]
    if not known:
        raise Unscored("no layer that consumes its channels reads them straight from BatchNorms")
    return [group.member(a, shares(a)) for a in known]


@criterion(
    "apoz",
    "share of activations that are not zero (one less the average percentage of zeros)",
    source="Hu et al., Network Trimming, 2016, equation 1",
    needs=("activations",),
    combine="mean",
)
def apoz(group: GroupView) -> list[Tensor]:
    """1 - APoZ_c: over images and places, how often the channel is not zero where it is consumed. Says nothing about
    channels whose activation has no zeros."""
    return [group.member(a, (_seen(a) != 0).double().mean((0, 2))) for a in group.activations]


def _seen(activation: Activation) -> Tensor:
    assert activation.values is not None
    return activation.values


@criterion(
    "taylor_activation",
    "|mean over places of activation × gradient|, divided by the layer's Euclidean norm",
    source="Molchanov et al., Pruning CNNs for Resource Efficient Inference, ICLR 2017, equations 8 and 10",
    needs=("activations", "gradients"),
    combine="mean",
    finish=lambda members: members / members.nan_to_num().norm(dim=1, keepdim=True).clamp_min(1e-300),
)
def taylor_activation(group: GroupView) -> list[Tensor]:
    """Θ_TE(z_c) = |1/M Σ_m ∂C/∂z_cm · z_cm| for each image, M places, at the layers that consume the channels.

    The division by the layer's norm (equation 10) makes layers comparable; the framework averages over images first.
    """
    members = []
    for a in group.activations:
        assert a.gradient is not None
        members.append(group.member(a, (_seen(a) * a.gradient).mean(2).abs().mean(0)))
    return members


@criterion(
    "chip",
    "channel independence: how much the nuclear norm of an image's feature maps falls without the channel",
    source="Sui et al., CHIP, NeurIPS 2021, equation 4",
    needs=("activations",),
    combine="mean",
)
def chip(group: GroupView) -> list[Tensor]:
    """CI(A_c) = ‖A‖_* - ‖M_c ⊙ A‖_*, A being an image's (channels, places) and M_c the mask of row c.

    Singular values come from the smaller Gram matrix, from which one row's part is taken. Slow for wide layers.
    Maps are those that enter a consumer, or an average over places before it.
    """
    members = []
    for a in group.activations:
        falls = torch.stack([independence(image, group.memory) for image in _seen(a)])
        members.append(group.member(a, falls.mean(0)))
    return members


def independence(maps: Tensor, memory: float = LIMIT) -> Tensor:
    """The fall of the nuclear norm for each row of `maps` (channels, places) set to zero: shape (channels,)."""
    maps = maps.double().cpu()
    channels, places = maps.shape
    side = min(channels, places)
    if 4 * 8.0 * side**2 > memory:
        raise Unscored(
            f"its maps of {places} places and {channels} channels make matrices over memory, {amount(memory)}"
        )
    at_once = max(1, min(64, int(memory / (3 * 8.0 * side**2)) - 1))
    if places <= channels:
        whole = maps.mT @ maps
        without = (whole - row[:, :, None] * row[:, None, :] for row in maps.split(at_once))
    else:
        whole = maps @ maps.mT
        without = (_without(whole, rows) for rows in torch.arange(channels).split(at_once))
    norms = torch.cat([_root_sum(grams) for grams in without])
    return (_root_sum(whole) - norms).clamp_min(0)


def _without(gram: Tensor, rows: Tensor) -> Tensor:
    masked = gram.expand(len(rows), -1, -1).clone()
    each = torch.arange(len(rows))
    masked[each, rows] = 0
    masked[each, :, rows] = 0
    return masked


def _root_sum(gram: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum(-1)
