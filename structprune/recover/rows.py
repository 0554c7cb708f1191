"""The ridge solution from the products of rows: for windows of so many inputs that their second moments fit nowhere.

With E the residuals of the given weights W, X the rows, both about their means, and r rows, the weights that `moments`
finds from XᵀX, of shape (inputs, inputs), are W + αᵀX with α = (XXᵀ + r · ridge · v)⁻¹ E. XXᵀ is (rows, rows), and a
sum over parts of the inputs, so that no more than a part of the windows is ever held. It is the same minimum, on the
rows that are given (Saunders, Gammerman & Vovk, Ridge Regression Learning Algorithm in Dual Variables, ICML 1998).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .moments import RIDGES

Parts = Callable[[], Iterable[tuple[slice, Tensor]]]  # which of the unknowns, and the rows of their inputs, float32


@dataclass(frozen=True)
class FromRows:
    """`weight` (outputs, inputs) and `bias` (outputs,), and the rest as in `moments.Solution`."""

    weight: Tensor
    bias: Tensor
    ridge: float
    before: float
    after: float


def rows_solution(
    parts: Parts, y: Tensor, weight: Tensor, bias: Tensor, folds: Tensor, ridge: float | None, intercept: bool
) -> FromRows:
    """The weights that map rows x to y (rows, outputs), near `weight` (outputs, inputs); see `moments.ridge_solution`.

    `parts()` goes through the inputs, a few at a time, and is called twice. `folds` (rows,) says which fold a row is
    of. `bias` is the given offset of each output, or of each row.
    """
    rows, outputs = y.shape
    products = torch.zeros(rows, rows, dtype=torch.float64, device=y.device)
    residual = y.double()
    centre: list[Tensor] = []
    for place, x in parts():
        mean = x.mean(0) if intercept else x.new_zeros(x.shape[1])
        x = x - mean
        products.add_(x @ x.mT)
        own = weight[:, place].to(x)
        residual -= (x @ own.mT).double() + (own @ mean).double()
        centre.append(mean)
    variance = float(_spread(y.double(), intercept)) or 1.0
    before = float((residual - bias.double()).square().sum()) / rows
    after = math.nan
    if ridge is None and len(folds.unique()) == 1:
        ridge = 0.1
    elif ridge is None:
        errors = _unseen(products, residual, folds, weight.shape[1], intercept)
        ridge = min(errors, key=lambda value: errors[value])
        after = errors[ridge]
        if not after < before:
            return FromRows(weight, bias, math.inf, before / variance, before / variance)
    everything = torch.arange(rows)
    solved = _Fitted.of(products, residual, everything, weight.shape[1], intercept)
    alpha = solved.alpha(ridge)
    if not torch.isfinite(alpha).all():
        return FromRows(weight, bias, math.inf, before / variance, before / variance)
    if math.isnan(after):
        after = float((solved.residual - solved.products @ alpha).square().sum()) / rows
    new_weight, offset = weight.clone(), residual.mean(0) if intercept else residual.new_zeros(outputs)
    for (place, x), mean in zip(parts(), centre, strict=True):
        change = alpha.to(x).mT @ (x - mean)
        new_weight[:, place] += change.to(new_weight)
        offset = offset - (change @ mean).double()
    return FromRows(new_weight, offset, ridge, before / variance, after / variance)


def scales_from_rows(
    parts: Parts,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    folds: Tensor,
    ridge: float | None,
    intercept: bool,
    *,
    places: int,
    generator: torch.Generator,
) -> FromRows:
    """`weight` with one factor for each input channel (each `places` inputs), as `moments.scales` finds it, from one
    output of each row, drawn as in Luo et al. 2017, section 3.2."""
    rows, outputs = y.shape
    drawn = torch.randint(outputs, (rows,), generator=generator)
    weight, mean = weight.to(y), y.new_zeros(weight.shape[1])
    if intercept:
        for place, x in parts():
            mean[place] = x.mean(0)
    offset = y.mean(0) - weight @ mean if intercept else y.new_zeros(outputs)  # with the weights as given

    def contributions() -> Iterator[tuple[slice, Tensor]]:
        for place, x in parts():
            products = (x - mean[place]) * weight[:, place][drawn]
            yield slice(place.start // places, place.stop // places), products.reshape(rows, -1, places).sum(2)

    target = (y - y.mean(0) if intercept else y)[torch.arange(rows), drawn].unsqueeze(1)
    ones, missing = y.new_ones(1, weight.shape[1] // places), (bias.to(y) - offset)[drawn].unsqueeze(1)
    solution = rows_solution(contributions, target, ones, missing, folds, ridge, False)
    if math.isinf(solution.ridge):
        return FromRows(weight, bias, math.inf, solution.before, solution.after)
    new_weight = weight * solution.weight[0].repeat_interleave(places)
    shift = (y.mean(0) - new_weight @ mean if intercept else y.new_zeros(outputs)).double()
    return FromRows(new_weight, shift, solution.ridge, solution.before, solution.after)


@dataclass
class _Fitted:
    """Products and residuals of the rows of a fit, about their means, and v: the mean variance of an input."""

    products: Tensor
    residual: Tensor
    damping: float

    @classmethod
    def of(cls, products: Tensor, residual: Tensor, rows: Tensor, inputs: int, intercept: bool) -> _Fitted:
        own, left = products[rows][:, rows], residual[rows]
        if intercept:
            left = left - left.mean(0)
            own -= own.mean(0, keepdim=True)
            own -= own.mean(1, keepdim=True)
        return cls(own, left, max(float(own.diagonal().sum()) / (len(rows) * inputs), 1e-12))

    def alpha(self, ridge: float) -> Tensor:
        """NaN where the system is singular to rounding."""
        system = self.products.clone()
        system.diagonal().add_(len(system) * ridge * self.damping)
        factor, failed = torch.linalg.cholesky_ex(system)
        if failed.any():
            return torch.full_like(self.residual, torch.nan)
        return torch.cholesky_solve(self.residual, factor)


def _unseen(products: Tensor, residual: Tensor, folds: Tensor, inputs: int, intercept: bool) -> dict[float, float]:
    """For each ridge the mean squared error of the rows of each fold, by a fit to the other folds' rows."""
    errors = dict.fromkeys(RIDGES, 0.0)
    for fold in folds.unique():
        ours, others = (folds == fold).nonzero()[:, 0], (folds != fold).nonzero()[:, 0]
        fitted = _Fitted.of(products, residual, others, inputs, intercept)
        across, left = products[ours][:, others], residual[ours]
        if intercept:
            within = products[others][:, others].mean(0)
            across = across - across.mean(1, keepdim=True) - within + within.mean()
            left = left - residual[others].mean(0)
        for value in RIDGES:
            error = float((left - across @ fitted.alpha(value)).square().sum())
            errors[value] += (error if math.isfinite(error) else math.inf) / len(folds)
    return errors


def _spread(y: Tensor, intercept: bool) -> Tensor:
    return (y - y.mean(0) if intercept else y).square().mean(0).sum()
