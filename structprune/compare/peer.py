"""torch-pruning, the peer that structprune is measured against: what it removes is found out and checked.

It takes a pruning ratio and no budget, so the ratio that comes nearest to a number of MACs is searched for. It does not
say which channels stay; in a network without two equal values, the values that are left tell.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import PlanError
from ..modules import plain_attention, replace_tensors, skeleton_copy, tensors
from ..process_state import silent_warnings
from ..report import count_macs

SEARCH_STEPS = 8
Kept = dict[str, list[np.ndarray]]  # for each parameter or buffer, the kept indices of each axis
Prune = Callable[[nn.Module, Tensor, float, int], nn.Module]


@dataclass(frozen=True)
class Settings:
    """How torch-pruning ranks and shares: the name of an importance of its own and its arguments; one ratio in every
    layer, or one threshold for all. `ignored` are paths of modules that stay; `max_ratio` bounds a layer's ratio."""

    importance: str = "GroupMagnitudeImportance"
    arguments: dict[str, Any] = field(default_factory=lambda: {"p": 1})
    global_: bool = False
    ignored: Sequence[str] = ()
    max_ratio: float = 1.0


def prune_by_ratio(
    model: Any, x: Tensor, ratio: float, align: int = 1, settings: Settings | None = None, attn_dim: bool = False
) -> nn.Module:
    """Prunes `model` in place, as torch-pruning does, with widths rounded to `align`.

    The classifier's outputs stay, heads are told as in torch-pruning's own example for timm (fused attention must be
    off, see `without_fused_attention`); `attn_dim` also mends the attribute of that name, which that example does not
    know.
    """
    import torch_pruning as tp

    chosen = settings or Settings()
    layers, classes = list(model.modules()), getattr(model, "num_classes", None)
    ignored: list[nn.Module] = [m for m in layers if isinstance(m, nn.Linear) and m.out_features == classes]
    ignored += [m for m in pytree.tree_leaves(getattr(model, "get_classifier", tuple)()) if isinstance(m, nn.Module)]
    ignored += [m for path, m in model.named_modules() if path in chosen.ignored]
    attention = [m for m in layers if hasattr(m, "num_heads") and isinstance(getattr(m, "qkv", None), nn.Linear)]
    heads = {m.qkv: m.num_heads for m in attention}
    with silent_warnings():
        tp.pruner.BasePruner(
            model,
            x,
            getattr(tp.importance, chosen.importance)(**chosen.arguments),
            pruning_ratio=ratio,
            max_pruning_ratio=chosen.max_ratio,
            global_pruning=chosen.global_,
            ignored_layers=ignored,
            round_to=align if align > 1 else None,
            num_heads=heads,
            in_channel_groups={},  # its defaults are dicts that every pruner fills and reads
            out_channel_groups={},
        ).step()
    for module in attention:
        module.num_heads = heads[module.qkv]
        module.head_dim = module.qkv.out_features // (3 * module.num_heads)
        if attn_dim and hasattr(module, "attn_dim"):
            module.attn_dim = module.qkv.out_features // 3
    return model


def without_fused_attention(model: nn.Module) -> nn.Module:
    """A copy for torch-pruning, which can't follow fused attention."""
    twin = copy.deepcopy(model)
    plain_attention(twin)
    return twin


def search_ratio(model: nn.Module, x: Tensor, target: int, align: int, prune: Prune = prune_by_ratio) -> float:
    """The pruning ratio whose MACs are nearest to `target`, each step by `prune` on a fresh copy.

    A bracketing search by false position (Illinois variant) on the root of the MACs, which falls nearly linearly
    with the ratio: halving would need twice the steps to come as near.
    """
    tried: dict[float, int] = {}
    low, over = 0.0, math.sqrt(total_macs(model, x) / target) - 1  # f(ratio) = √(MACs ÷ target) − 1 at both ends
    high, under = 1.0, -1.0
    side = 0
    if over <= 0:
        return 0.0
    for _ in range(SEARCH_STEPS):
        ratio = (low * under - high * over) / (under - over)
        macs = tried[ratio] = total_macs(prune(copy.deepcopy(model), x, ratio, align), x)
        error = math.sqrt(macs / target) - 1
        if error > 0:
            low, over, under = ratio, error, under / 2 if side == 1 else under
            side = 1
        elif error < 0:
            high, under, over = ratio, error, over / 2 if side == -1 else over
            side = -1
        else:
            break
    return min(tried, key=lambda r: abs(tried[r] - target))


def total_macs(model: nn.Module, x: Tensor) -> int:
    """With attention's products, which fvcore counts where attention is not fused."""
    plain = skeleton_copy(model)
    plain_attention(plain)
    return sum(count_macs(plain, x).values())


def distinct(model: nn.Module, spread: float) -> nn.Module:
    """The model in float64, changed in place so that no two values of a tensor are equal: by up to `spread` of each,
    and of a tenth where it is 0."""
    new = {}
    for key, tensor in tensors(model).items():
        if tensor.is_floating_point():
            value = tensor.detach().double()
            value = value * (1 + spread * torch.rand_like(value))
            new[key] = torch.where(value == 0, spread * 0.1 * torch.randn_like(value), value)
    replace_tensors(model, new)
    return model


def kept_indices(dense: nn.Module, slim: nn.Module) -> Kept:
    """Where each value of the slim network's tensors was in the `distinct` dense one; raises PlanError if that is no
    slice."""
    result, small = {}, tensors(slim)
    for key, tensor in tensors(dense).items():
        if key not in small or small[key].dim() != tensor.dim():
            raise PlanError(f"{key} is gone or has another rank")
        if not tensor.is_floating_point():
            result[key] = [np.arange(size) for size in tensor.shape]
            continue
        full, left = tensor.detach().numpy(), small[key].detach().numpy()
        order = np.argsort(full, axis=None)
        place = np.minimum(np.searchsorted(full.ravel()[order], left.ravel()), full.size - 1)
        where = np.unravel_index(order[place], full.shape)
        result[key] = [np.unique(index) for index in where]
        if not np.array_equal(full[np.ix_(*result[key])], left):
            raise PlanError(f"{key} is not a slice of the dense one")
    return result


def zeroed(dense: nn.Module, kept: Kept) -> nn.Module:
    """The dense network with its removed filters and kernels set to zero; vectors stay."""
    reference = copy.deepcopy(dense)
    new = {}
    for key, tensor in tensors(dense).items():
        if tensor.dim() > 1:
            mask = torch.zeros_like(tensor)
            mask[np.ix_(*kept[key])] = 1
            new[key] = tensor.detach() * mask
    replace_tensors(reference, new)
    return reference
