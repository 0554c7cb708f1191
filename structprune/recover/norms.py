"""Scales and offsets of LayerNorms whose channels are fewer, fitted to what the dense network's LayerNorms made.

A LayerNorm of fewer channels divides by another mean and deviation than the dense one. That is a factor and an offset
of each token, which no weights can undo: what can be fitted is a factor and an offset of each channel, by least squares
over tokens. It is exact where mean and deviation over the channels that stay are, for all tokens, the same multiple and
distance of those over all; else it is the best of its kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..calibration import WritableNetwork
from ..graph.channel_norms import ChannelNorm, find_channel_norms
from ..records import Plan
from .moments import Moments, Solution, full, ridge_solution
from .refits import TARGETS

TOKENS_PER_IMAGE = 64


@dataclass(frozen=True)
class NormTask:
    """A norm to fit, on `each` tokens of an image; `targets` are the bytes of what the dense network makes of them."""

    layer: ChannelNorm
    each: int
    targets: float

    def describe(self) -> str:
        return self.layer.module

    def tokens(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Some tokens of each image, the same for inputs of the same shape: shape (tokens, channels)."""
        rows = x.reshape(len(x), -1, x.shape[-1])
        if rows.shape[1] <= self.each:
            return rows.flatten(0, 1)
        chosen = torch.rand(rows.shape[:2], generator=generator).topk(self.each, dim=1).indices.to(x.device)
        return rows.gather(1, chosen.unsqueeze(2).expand(-1, -1, x.shape[-1])).flatten(0, 1)


def norm_tasks(slim: WritableNetwork, plan: Plan, images: int, memory: float) -> list[NormTask]:
    """The norms of the slim network that lost channels, in the order of their calls."""
    tasks = []
    for norm in find_channel_norms(slim.recording):
        if "0" in plan.keep.get(norm.weight, {}):
            wide = plan.shapes[norm.weight][0] * 4.0 * images
            each = max(1, min(TOKENS_PER_IMAGE, int(memory * TARGETS / wide)))
            tasks.append(NormTask(norm, each, wide * each))
    return tasks


def fit_norm(
    slim: WritableNetwork, norm: ChannelNorm, rows: Sequence[tuple[int, Tensor, Tensor]], ridge: float | None
) -> Solution:
    """Fits scale and offset, and writes them.

    Args:
        slim: the network that is mended.
        norm: one of its norms.
        rows: for each batch its fold, what the norm makes now and what it is to make, both (tokens, channels).
        ridge: as in `ridge_solution`: it holds factors near 1.

    Returns:
        The factors, shape (channels, 1, 1), and what is added, as what `ridge_solution` finds.
    """
    channels = rows[0][1].shape[1]
    device, intercept = rows[0][1].device, norm.bias is not None
    folds: dict[int, Moments] = {}
    for fold, x, y in rows:
        if fold not in folds:
            folds[fold] = Moments.zeros(channels, 1, 1, intercept=intercept, device=device)
        folds[fold].see(x.double().mT.unsqueeze(2), y.double().mT.unsqueeze(2))
    start = torch.ones(channels, 1, 1, dtype=torch.float64, device=device)
    solution = ridge_solution(list(folds.values()), start, start[:, 0] * 0, ridge, full)
    if math.isfinite(solution.ridge):
        factor = solution.weight.flatten()
        slim.write(norm.weight, slim.state[norm.weight].double() * factor)
        if norm.bias is not None:
            slim.write(norm.bias, slim.state[norm.bias].double() * factor + solution.bias.flatten())
    return solution
