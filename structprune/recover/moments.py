"""Second moments of input windows and wanted outputs, gathered batch by batch, and the ridge solution from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

FOLDS = 4
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the mean variance of an input


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
    def of(cls, x: Tensor, y: Tensor, intercept: bool = True) -> Moments:
        """Of rows x (blocks, rows, inputs) and y (blocks, rows, outputs)."""
        xx, xy, yy = x.mT @ x, x.mT @ y, y.square().sum(1)
        return cls(
            float(x.shape[1]), x.sum(1).double(), y.sum(1).double(), xx.double(), xy.double(), yy.double(), intercept
        )

    def _with(self, other: Moments, sign: int) -> Moments:
        names = ("rows", "x", "y", "xx", "xy", "yy")
        sums = {name: getattr(self, name) + sign * getattr(other, name) for name in names}
        return replace(self, **sums)

    def __add__(self, other: Moments) -> Moments:
        return self._with(other, 1)

    def __sub__(self, other: Moments) -> Moments:
        return self._with(other, -1)

    def means(self) -> tuple[Tensor, Tensor]:
        if not self.intercept:
            return torch.zeros_like(self.x), torch.zeros_like(self.y)
        return self.x / self.rows, self.y / self.rows

    def centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances xx, xy and variances yy (about zero without an intercept)."""
        mx, my = self.means()
        xx = self.xx / self.rows - mx.unsqueeze(2) * mx.unsqueeze(1)
        xy = self.xy / self.rows - mx.unsqueeze(2) * my.unsqueeze(1)
        return xx, xy, self.yy / self.rows - my.square()

    def error(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The mean of |y - weight x - bias|² over rows, summed over outputs and blocks; weight (blocks, out, in)."""
        mx, my = self.means()
        xx, xy, yy = self.centred()
        offset = my - bias - (weight @ mx.unsqueeze(2)).squeeze(2)
        spread = yy - 2 * (weight * xy.mT).sum(2) + (weight * (weight @ xx)).sum(2)
        return (spread + offset.square()).sum()

    def bias(self, weight: Tensor) -> Tensor:
        """The best offset of the outputs for a weight (blocks, outputs, inputs): zero without an intercept."""
        mx, my = self.means()
        return my - (weight @ mx.unsqueeze(2)).squeeze(2)


@dataclass(frozen=True)
class Solution:
    """`weight` (blocks, outputs, inputs) and `bias` (blocks, outputs); the ridge that was used, infinite where the
    weights were better kept; the squared error as a share of the outputs' variance before and after, after on rows
    that the fit had not seen where there are several folds."""

    weight: Tensor
    bias: Tensor
    ridge: float
    before: float
    after: float


Solve = Callable[[Moments, Tensor, float], Tensor]


def ridge_solution(folds: list[Moments], weight: Tensor, bias: Tensor, ridge: float | None, solve: Solve) -> Solution:
    """The weights by `solve` (`full` or `scales`) that map x to y, and the offset.

    If `ridge` is None, the one that serves the rows of each fold best, when it is fitted to the other folds', is taken;
    keeping `weight` and `bias` is among the choices. One fold gets a ridge of 0.1.
    """
    whole = folds[0]
    for fold in folds[1:]:
        whole = whole + fold
    variance = float(whole.centred()[2].sum()) or 1.0
    before = sum(float(fold.error(weight, bias)) * fold.rows for fold in folds) / whole.rows
    after = math.nan
    if ridge is None and len(folds) == 1:
        ridge = 0.1
    elif ridge is None:
        errors = dict.fromkeys(RIDGES, 0.0)
        for fold in folds:
            rest = whole - fold
            for value in RIDGES:
                made = solve(rest, weight, value)
                error = float(fold.error(made, rest.bias(made)))
                errors[value] += (error if math.isfinite(error) else math.inf) * fold.rows / whole.rows
        ridge = min(errors, key=lambda value: errors[value])
        after = errors[ridge]
        if not after < before:
            return Solution(weight, bias, math.inf, before / variance, before / variance)
    made = solve(whole, weight, ridge)
    if not torch.isfinite(made).all():
        return Solution(weight, bias, math.inf, before / variance, before / variance)
    made_bias = whole.bias(made)
    if math.isnan(after):
        after = float(whole.error(made, made_bias))
    return Solution(made, made_bias, ridge, before / variance, after / variance)


def full(moments: Moments, weight: Tensor, ridge: float) -> Tensor:
    """min over W of |y - W x|² / rows + ridge · v · |W - weight|², v being the mean variance of an input."""
    xx, xy, _ = moments.centred()
    diagonal = xx.diagonal(dim1=1, dim2=2)
    damping = (ridge * diagonal.mean(1, keepdim=True).clamp_min(1e-12)).expand_as(diagonal)
    change = _solved(xx + torch.diag_embed(damping), xy - xx @ weight.mT)
    return weight + change.mT


def scales(moments: Moments, weight: Tensor, ridge: float, places: int) -> Tensor:
    """`weight` with one factor s for each input channel (each `places` inputs), ThiNet's equation 7:
    min over s of |y - Σ_c s_c W_c x_c|² / rows + ridge · v · |s - 1|², v being the mean energy of a W_c x_c."""
    xx, xy, _ = moments.centred()
    blocks, _, inputs = weight.shape
    channels = inputs // places
    shape = (blocks, channels, places, channels, places)
    system = ((weight.mT @ weight) * xx).reshape(shape).sum((2, 4))
    wanted = (weight.mT * xy).sum(2).reshape(blocks, channels, places).sum(2)
    diagonal = system.diagonal(dim1=1, dim2=2)
    damping = (ridge * diagonal.mean(1, keepdim=True).clamp_min(1e-12)).expand_as(diagonal)
    change = _solved(system + torch.diag_embed(damping), (wanted - system.sum(2)).unsqueeze(2)).squeeze(2)
    return weight * (1 + change).repeat_interleave(places, dim=1).unsqueeze(1)


def _solved(system: Tensor, wanted: Tensor) -> Tensor:
    """NaN where the system is singular to rounding."""
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed.any():
        return torch.full_like(wanted, torch.nan)
    return torch.cholesky_solve(wanted, factor)
