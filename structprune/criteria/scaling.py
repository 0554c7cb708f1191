"""Criteria by BatchNorm's parameters: no data is needed."""

from __future__ import annotations

from torch import Tensor

from ..graph.expectation import through
from .registry import criterion
from .views import GroupView, Norm


@criterion(
    "slimming",
    "|γ| of the BatchNorm on the channels; meant for networks trained with an L1 penalty on γ",
    source="Liu et al., Network Slimming, ICCV 2017, section 3",
    needs=("bn",),
    combine="max",
)
def slimming(group: GroupView) -> list[Tensor]:
    """The scale of a channel's BatchNorm, comparable over all layers: allocation `threshold` with the budget
    `channels` is the paper's percentile, keeping what is strictly greater.

    BatchNorms on coupled channels are ranked together, by default by the largest of their scales.
    """
    return [group.member(norm, norm.scale.abs()) for norm in group.norms]


@criterion(
    "bn_expectation",
    "expected absolute activation of a channel, from its BatchNorm's γ and β alone",
    source="Oh et al., Batch Normalization Tells You Which Filter is Important, WACV 2022",
    needs=("bn",),
    combine="leading",
)
def bn_expectation(group: GroupView) -> list[Tensor]:
    """E|a(z)| for z ~ N(β, γ²), a being the activation after the BatchNorm, by Gauss-Hermite quadrature.

    For ReLU that is β Φ(β/|γ|) + |γ| φ(β/|γ|). The last BatchNorm before the channels are consumed leads.
    """
    return [group.member(norm, _expected_size(norm)) for norm in reversed(group.norms)]


def _expected_size(norm: Norm) -> Tensor:
    return through(lambda z: norm.activate(z).abs(), norm.shift, norm.scale.square()).mean
