"""What the comparisons with torch-pruning share: networks, how each tool prunes, what is kept, on what machine."""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

import structprune as sp

from ..compare.peer import prune_by_ratio, search_ratio, total_macs, without_fused_attention
from ..runtimes import environment

OURS, THEIRS = "structprune", "torch-pruning"
NETWORKS = (
    "resnet50,resnet18,mobilenetv2_100,tf_efficientnet_lite0,regnetx_002,densenet121,vgg16_bn,convnext_atto,"
    "vit_tiny_patch16_224,mobilenetv3_small_100"
)
CUT = 0.5  # the share of the MACs that may stay
ROUNDINGS = (1, 8, 16)  # of torch-pruning's widths


def prune_by_plan(model: nn.Module, x: Tensor, share: float, align: int) -> tuple[nn.Module, sp.Plan]:
    """structprune's slim network by `group_l1`, uniformly, and its plan.

    Args:
        model: The dense network.
        x: A batch of images.
        share: Of the MACs that go.
        align: Widths are multiples of this.

    Returns:
        The slim network and the plan.

    Raises:
        BudgetError: No plan cuts so much.
    """
    graph = sp.trace(model, x)
    plan = sp.plan(graph, sp.score(graph, "group_l1"), {"macs": 1 - share}, allocation="uniform", align=align)
    return sp.prune(model, plan), plan


def prune_by_peer(model: nn.Module, x: Tensor, align: int) -> nn.Module:
    """torch-pruning's network nearest to `CUT` of the MACs; fused attention off, as its example for timm asks.

    Args:
        model: The dense network, which stays as it is.
        x: A batch of images.
        align: Its widths are rounded to multiples of this.

    Returns:
        The slim network.

    Raises:
        Exception: Whatever torch-pruning or a network that it broke raises.
    """

    def prune(dense: nn.Module, x: Tensor, ratio: float, align: int) -> nn.Module:
        return prune_by_ratio(dense, x, ratio, align, attn_dim=True)

    dense = without_fused_attention(model)
    ratio = search_ratio(dense, x, round(total_macs(model, x) * CUT), align, prune)
    return prune(dense, x, ratio, align)


def share_kept(dense: nn.Module, slim: nn.Module) -> float:
    """What stays of a network: with random weights that is the importance kept.

    Args:
        dense: The dense network.
        slim: The slim one.

    Returns:
        The geometric mean, over convolutions and linear layers, of the share of outputs that stay; NaN without any.
    """
    shares = []
    modules = dict(slim.named_modules())
    for path, layer in dense.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and path in modules:
            shares.append(modules[path].weight.shape[0] / layer.weight.shape[0])
    return math.exp(sum(map(math.log, shares)) / len(shares)) if shares else math.nan


def machine() -> dict[str, Any]:
    """The machine and the versions at work, torch-pruning's among them."""
    about = environment()
    packages = {**about.packages, THEIRS: version(THEIRS)}
    return {**about.to_data(), "packages": packages, "torch_threads": torch.get_num_threads()}
