"""Second moments of input windows and wanted outputs, gathered batch by batch, and the ridge solution from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

FOLDS = 4
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the mean variance of an input
_SUMS = ("x", "y", "xx", "xy", "yy")


@dataclass
class Moments:
    """Sums over rows x (inputs) and y (outputs) of one block of outputs: what least squares needs, whatever the rows.

    Blocks of a grouped convolution come first: shapes (blocks, inputs, inputs), (blocks, inputs, outputs), and so on.
    Rows should be given about a point near their mean, or differences of large numbers are left. Without `intercept`
    the outputs have no offset that could be chosen, and nothing is taken about a mean.
    """

    rows: float
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor
    intercept: bool = True

    @classmethod
    def zeros(cls, blocks: int, inputs: int, outputs: int, *, intercept: bool = True, device: Any = None) -> Moments:
        def empty(*shape: int) -> Tensor:
            return torch.zeros(blocks, *shape, dtype=torch.float64, device=device)

        xx, xy = empty(inputs, inputs), empty(inputs, outputs)
        return cls(0.0, empty(inputs), empty(outputs), xx, xy, empty(outputs), intercept)

    def see(self, x: Tensor, y: Tensor) -> None:
        """Adds rows x (blocks, rows, inputs) and y (blocks, rows, outputs)."""
        self.rows += float(x.shape[1])
        sums = (x.sum(1), y.sum(1), x.mT @ x, x.mT @ y, y.square().sum(1))
        for total, more in zip((self.x, self.y, self.xx, self.xy, self.yy), sums, strict=True):
            total.add_(more)

    @classmethod
    def sum(cls, parts: Sequence[Moments]) -> Moments:
        total = replace(parts[0], **{name: getattr(parts[0], name).clone() for name in _SUMS})
        for part in parts[1:]:
            total.rows += part.rows
            for name in _SUMS:
                getattr(total, name).add_(getattr(part, name))
        return total

    def means(self) -> tuple[Tensor, Tensor]:
        if not self.intercept:
            return torch.zeros_like(self.x), torch.zeros_like(self.y)
        return self.x / self.rows, self.y / self.rows

    def centre(self) -> Moments:
        """Makes covariances of `xx` and `xy` and variances of `yy`, in place (about zero without an intercept); means
        and biases stay what they were."""
        mx, my = self.means()
        self.xx.div_(self.rows).baddbmm_(mx.unsqueeze(2), mx.unsqueeze(1), alpha=-1)
        self.xy.div_(self.rows).baddbmm_(mx.unsqueeze(2), my.unsqueeze(1), alpha=-1)
        self.yy.div_(self.rows).sub_(my.square())
        return self

    @staticmethod
    def spread(parts: Sequence[Moments]) -> float:
        """The variance of all outputs together (without an intercept the mean square), or 1 where they are constant."""
        rows = sum(part.rows for part in parts)
        y, yy = (torch.stack([getattr(part, name) for part in parts]).sum(0) / rows for name in ("y", "yy"))
        return float((yy - y.square() * parts[0].intercept).sum()) or 1.0

    def error(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The mean of |y - weight x - bias|² over rows, summed over outputs and blocks; weight (blocks, out, in)."""
        squares = self.yy - 2 * (weight * self.xy.mT).sum(2) + (weight * (weight @ self.xx)).sum(2)
        left = self.y - (weight @ self.x.unsqueeze(2)).squeeze(2)  # the sum of y - weight x
        return ((squares - 2 * bias * left) / self.rows + bias.square()).sum()

    def bias(self, weight: Tensor) -> Tensor:
        """The best offset of the outputs for a weight (blocks, outputs, inputs): zero without an intercept."""
        mx, my = self.means()
        return my - (weight @ mx.unsqueeze(2)).squeeze(2)


@dataclass(frozen=True)
class Solution:
    """`weight` (blocks, outputs, inputs) and `bias` (blocks, outputs); the ridge that was used, infinite where the
    weights were better kept; the squared error as a share of the outputs' variance before and after, after on rows
    that the fit had not seen where there are several folds; how many rows there were."""

    weight: Tensor
    bias: Tensor
    ridge: float
    before: float
    after: float
    rows: float


Solve = Callable[[Moments, Tensor, float], Tensor]


def ridge_solution(folds: list[Moments], weight: Tensor, bias: Tensor, ridge: float | None, *solves: Solve) -> Solution:
    """The weights by `full` or `scales` that map x to y, and the offset.

    If `ridge` is None, that and the one of `solves` are taken that serve the rows of each fold best, when they are
    fitted to the other folds'; keeping `weight` and `bias` is among the choices. One fold gets a ridge of 0.1. Where
    nothing tells them apart, the first of `solves` is taken.
    """
    solve = solves[0]
    rows, variance = sum(fold.rows for fold in folds), Moments.spread(folds)
    before = sum(float(fold.error(weight, bias)) * fold.rows for fold in folds) / rows
    after = math.nan
    if ridge is None and len(folds) == 1:
        ridge = 0.1
    elif ridge is None:
        errors = dict.fromkeys(itertools.product(solves, RIDGES), 0.0)
        for fold in folds:
            rest = Moments.sum([other for other in folds if other is not fold]).centre()
            for choice in errors:
                new_weight = choice[0](rest, weight, choice[1])
                error = float(fold.error(new_weight, rest.bias(new_weight)))
                errors[choice] += (error if math.isfinite(error) else math.inf) * fold.rows / rows
        solve, ridge = min(errors, key=lambda pair: errors[pair])
        after = errors[solve, ridge]
        if not after < before:
            return Solution(weight, bias, math.inf, before / variance, before / variance, rows)
    whole = Moments.sum(folds).centre()
    new_weight = solve(whole, weight, ridge)
    if not torch.isfinite(new_weight).all():
        return Solution(weight, bias, math.inf, before / variance, before / variance, rows)
    new_bias = whole.bias(new_weight)
    if math.isnan(after):
        after = sum(float(fold.error(new_weight, new_bias)) * fold.rows for fold in folds) / rows
    return Solution(new_weight, new_bias, ridge, before / variance, after / variance, rows)


def full(moments: Moments, weight: Tensor, ridge: float) -> Tensor:
    """min over W of |y - W x|² / rows + ridge · v · |W - weight|², v being the mean variance of an input; of centred
    moments."""
    system = moments.xx.clone()
    diagonal = system.diagonal(dim1=1, dim2=2)
    diagonal.add_(ridge * diagonal.mean(1, keepdim=True).clamp_min(1e-12))
    return weight + _solved(system, moments.xy - moments.xx @ weight.mT).mT


def scales(moments: Moments, weight: Tensor, ridge: float, places: int) -> Tensor:
    """`weight` with one factor s for each input channel (each `places` inputs), ThiNet's equation 7:
    min over s of |y - Σ_c s_c W_c x_c|² / rows + ridge · v · |s - 1|², v being the mean energy of a W_c x_c; of centred
    moments."""
    blocks, _, inputs = weight.shape
    channels = inputs // places
    shape = (blocks, channels, places, channels, places)
    system = (weight.mT @ weight).mul_(moments.xx).reshape(shape).sum((2, 4))
    target = (weight.mT * moments.xy).sum(2).reshape(blocks, channels, places).sum(2)
    left = target - system.sum(2)
    diagonal = system.diagonal(dim1=1, dim2=2)
    diagonal.add_(ridge * diagonal.mean(1, keepdim=True).clamp_min(1e-12))
    change = _solved(system, left.unsqueeze(2)).squeeze(2)
    return weight * (1 + change).repeat_interleave(places, dim=1).unsqueeze(1)


def _solved(system: Tensor, target: Tensor) -> Tensor:
    """NaN where the system is singular to rounding."""
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed.any():
        return torch.full_like(target, torch.nan)
    return torch.cholesky_solve(target, factor)
