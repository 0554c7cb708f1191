"""Which fewer channels of a head say most of what all of them say: closed forms from second moments.

Logits of a head are QKᵀ, with Q and K of shape (tokens, width). Any P and R of shape (width, kept) make fewer channels
QP and KR, and the best are those of the truncated singular value decomposition of QKᵀ. With the moments Gq = QᵀQ =
LLᵀ and Gk = KᵀK = MMᵀ that is one of LᵀM = USVᵀ, a small matrix: P = L⁻ᵀU√S and R = M⁻ᵀV√S (Eckart and Young, The
approximation of one matrix by another of lower rank, 1936). What a head adds to the layer that reads its values is OW,
with O of shape (tokens, width): the same with W in the place of Kᵀ.
Moments are means over images, as if those of queries and of keys did not depend on each other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean second moment of a channel


@dataclass(frozen=True)
class Subspace:
    """`left` and `right`, shapes (heads, width, kept), by which the two sides of a product are multiplied; the ridge,
    infinite where the channels as cut were better; the squared error as a share of the whole product, as cut and now,
    on images that the fit had not seen where there are several folds."""

    left: Tensor
    right: Tensor
    ridge: float
    before: float
    after: float


def best_subspace(
    left: Sequence[Tensor],
    right: Sequence[Tensor],
    kept: Tensor,
    ridge: float | None,
    sides: tuple[bool, bool] = (True, True),
    refitted: bool = False,
) -> Subspace:
    """The matrices P and R of each head for which (left P)(right R)ᵀ is nearest to left rightᵀ.

    Args:
        left: the second moments of one side, for each fold of images, shapes (heads, width, width), in float64.
        right: those of the other.
        kept: the channels of each head that are kept as it was cut, shape (heads, kept).
        ridge: what is added to the diagonals of the moments, in shares of their mean; None chooses it by
            cross-validation over the folds.
        sides: which of the two may change; the other keeps its channels.
        refitted: whether the right side is fitted to the left in any case, so that this is what has to be bettered.

    Returns:
        The matrices, or those that keep the channels, where these serve images that a fit has not seen better.
    """
    folds = list(zip(left, right, strict=True))
    width = left[0].shape[1]
    as_cut = torch.eye(width, dtype=left[0].dtype, device=left[0].device)[:, kept].movedim(1, 0)  # (heads, width, kept)

    def fit(moments: Sequence[tuple[Tensor, Tensor]], value: float) -> tuple[Tensor, Tensor]:
        lefts, rights = (_damped(torch.stack(side).sum(0), value) for side in zip(*moments, strict=True))
        if all(sides):
            return _truncated(lefts, rights, kept.shape[1])
        return (_regressed(rights, as_cut), as_cut) if sides[0] else (as_cut, _regressed(lefts, as_cut))

    def stay(moments: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        lefts = torch.stack([side for side, _ in moments]).sum(0)
        return as_cut, _regressed(_damped(lefts, RIDGES[0]), as_cut) if refitted else as_cut

    whole = sum(float(product_error(*fold, as_cut * 0, as_cut)) for fold in folds) or 1.0
    before = _unseen(folds, stay) / whole
    if ridge is None and len(folds) > 1:
        errors = {value: _unseen(folds, functools.partial(fit, value=value)) for value in RIDGES}
        ridge = min(errors, key=lambda value: errors[value])
    elif ridge is None:
        ridge = RIDGES[1]
    after = _unseen(folds, functools.partial(fit, value=ridge)) / whole
    matrices = fit(folds, ridge)
    if not after < before or not all(bool(matrix.isfinite().all()) for matrix in matrices):
        return Subspace(as_cut, as_cut, math.inf, before, before)
    return Subspace(*matrices, ridge, before, after)


def product_error(left: Tensor, right: Tensor, p: Tensor, r: Tensor) -> Tensor:
    """The squared distance of (left P)(right R)ᵀ from left rightᵀ, from the second moments of both."""
    lost = torch.eye(p.shape[1], dtype=p.dtype, device=p.device) - p @ r.mT
    return ((left @ lost @ right) * lost).sum()


def _unseen(
    folds: Sequence[tuple[Tensor, Tensor]],
    fit: Callable[[Sequence[tuple[Tensor, Tensor]]], tuple[Tensor, Tensor]],
) -> float:
    """The error on each fold by a fit to the others; on one that is alone by a fit to itself."""
    error = 0.0
    for index, fold in enumerate(folds):
        own = float(product_error(*fold, *fit([*folds[:index], *folds[index + 1 :]] or folds)))
        error += own if math.isfinite(own) else math.inf
    return error


def _damped(moments: Tensor, ridge: float) -> Tensor:
    damped = moments.clone()
    diagonal = damped.diagonal(dim1=1, dim2=2)
    diagonal.add_(ridge * diagonal.mean(1, keepdim=True).clamp_min(1e-12))
    return damped


def _truncated(left: Tensor, right: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    lower, failed = torch.linalg.cholesky_ex(left)
    other, failed_too = torch.linalg.cholesky_ex(right)
    if failed.any() or failed_too.any():
        nan = torch.full_like(left[:, :, :kept], torch.nan)
        return nan, nan
    u, s, v = torch.linalg.svd(lower.mT @ other)
    root = s[:, None, :kept].sqrt()
    p = torch.linalg.solve_triangular(lower.mT, u[:, :, :kept] * root, upper=True)
    r = torch.linalg.solve_triangular(other.mT, v.mT[:, :, :kept] * root, upper=True)
    return p, r


def _regressed(moments: Tensor, chosen: Tensor) -> Tensor:
    """By what channels are multiplied so that, in the product with `chosen` of the other side, whose moments are
    given, they make up for those of its channels that are not chosen."""
    own = chosen.mT @ moments @ chosen
    return torch.linalg.solve(own, chosen.mT @ moments).mT
