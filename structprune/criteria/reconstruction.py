"""Criteria by what the next layer can still make: a filter matters as far as its consumers can't do without it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..calibration.spread import AT_ONCE
from ..memory_limits import amount, parts
from .registry import Unscored, criterion
from .views import Consumer, GroupView

DAMPING = 0.1  # of the mean variance of an input, on the diagonal, as the rows are few and alike


@criterion(
    "thinet",
    "greedy removal by the norm of the summed contributions to the next layer's outputs",
    source="Luo et al., ThiNet, ICCV 2017, equation 6 and algorithm 1",
    needs=("samples", "widths"),
    sequential=True,
    mend=lambda group, consumer, kept: scaled(group, consumer, kept),
)
def thinet(group: GroupView) -> Tensor:
    """Grows the removed set T by the channel that keeps ‖Σ_{c in T} x̂_c‖² smallest; who goes first scores lowest.

    x̂_c holds, for sampled (image, place, output filter), the contribution of channel c to the next layer's output on
    its actual padded input. Contributions cancel, so it is the norm of the sum and no sum of norms. Channels with
    several consumers: the sum over consumers, each divided by the energy of its outputs. After each group the least
    squares scales (equation 7) are folded into the consumers before the next group is ranked.
    """
    return removal_order(_grams(group)[0])


@criterion(
    "thinet_forward",
    "greedy forward selection: the kept set grows by the channel that leaves the smallest residual",
    source="the forward form of Luo et al., ICCV 2017, equation 5: min over kept sets S of ‖y - Σ_{c in S} x̂_c‖²",
    needs=("samples", "widths"),
    sequential=True,
    mend=lambda group, consumer, kept: scaled(group, consumer, kept),
)
def thinet_forward(group: GroupView) -> Tensor:
    """As `thinet`, but grows the kept set S by the channel that makes ‖y - Σ_{c in S} x̂_c‖² smallest; who comes first
    scores highest. y is the output less its bias."""
    return selection_order(*_grams(group))


def contributions(group: GroupView, consumer: Consumer) -> tuple[Tensor, Tensor]:
    """x̂, shape (rows, units), for one output filter drawn for each row, and y (rows,), what the group's channels make
    of it together (the output less its bias and less what stays whatever goes)."""
    products, total = zip(*_contributions(group, consumer), strict=True)
    return torch.cat(products), torch.cat(total)


def _contributions(group: GroupView, consumer: Consumer) -> Iterator[tuple[Tensor, Tensor]]:
    """The same, a few rows at a time."""
    own = (consumer.index >= 0).any(1)
    filters = torch.randint(len(consumer.weight), (len(consumer.windows),), generator=group.generator)
    each = 8.0 * (consumer.windows[:1].numel() + group.units)
    for part in parts(len(filters), each, min(AT_ONCE, group.memory / 8)):
        products = (consumer.windows[part] * consumer.weight[filters[part]]).sum(2).double().cpu()
        units = torch.zeros(len(products), group.units, dtype=torch.float64)
        for column in consumer.index.T:
            units.index_add_(1, column[column >= 0], products[:, column >= 0])
        yield units, products[:, own].sum(1)


def _grams(group: GroupView) -> tuple[Tensor, Tensor]:
    """The sums over consumers of x̂ᵀx̂ and x̂ᵀy, each divided by its ‖y‖²."""
    size = 8.0 * group.units**2
    if 3 * size > group.memory:
        raise Unscored(
            f"pairs of its {group.units} units take {amount(3 * size)}, and memory allows {amount(group.memory)}"
        )
    total = torch.zeros(group.units, group.units, dtype=torch.float64)
    target = torch.zeros(group.units, dtype=torch.float64)
    for consumer in group.consumers:
        gram, product, energy = torch.zeros_like(total), torch.zeros_like(target), 0.0
        for x, y in _contributions(group, consumer):
            gram.addmm_(x.mT, x)
            product += x.mT @ y
            energy += float(y.square().sum())
        total += gram.div_(max(energy, 1e-300))
        target += product / max(energy, 1e-300)
    return total, target


def removal_order(gram: Tensor) -> Tensor:
    """The step at which each unit is removed, from ``gram`` = x̂ᵀx̂ (units, units): greedy on ‖Σ_{c in T} x̂_c‖²."""
    cost, step = gram.diagonal().clone(), torch.empty(len(gram), dtype=torch.float64)
    for number in range(len(gram)):
        chosen = int(cost.argmin())
        step[chosen] = number
        cost += 2 * gram[:, chosen]  # of what is added to the norm: x̂_c² + 2 x̂_c Σ_T x̂
        cost[chosen] = torch.inf
    return step


def selection_order(gram: Tensor, product: Tensor) -> Tensor:
    """How many units are chosen after each, from x̂ᵀx̂ and x̂ᵀy: greedy on ‖y - Σ_{c in S} x̂_c‖²."""
    cost, left = gram.diagonal() - 2 * product, torch.empty(len(gram), dtype=torch.float64)
    for number in range(len(gram)):
        chosen = int(cost.argmin())
        left[chosen] = len(gram) - number
        cost += 2 * gram[:, chosen]
        cost[chosen] = torch.inf
    return left


def scaled(group: GroupView, consumer: Consumer, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The consumer's weight with each kept unit's kernels times its least squares scale, ŵ = (x̂ᵀx̂)⁻¹ x̂ᵀy over the kept
    columns (Luo et al., equation 7), and zeros for the others. `kept` is bool (units,)."""
    x, y = contributions(group, consumer)
    used = kept & group.holds(consumer)
    solved = torch.linalg.lstsq(x[:, used], y[:, None], driver="gelsd").solution[:, 0]
    scale = torch.zeros(group.units + 1, dtype=torch.float64)
    scale[:-1][used] = solved
    scale[-1] = 1.0  # what -1 looks up
    weight = consumer.weight * scale[consumer.index].prod(1).to(consumer.weight)[None, :, None]
    return weight, weight.new_zeros(len(weight))


def refitted(group: GroupView, consumer: Consumer, kept: Tensor, damping: float = DAMPING) -> tuple[Tensor, Tensor]:
    """The weight by least squares on the kept units' windows, zero for others, and the offset that keeps the outputs'
    means; `kept` is bool (units,)."""
    weight, covariance = flat_system(consumer, damping)
    stays = torch.cat([kept, kept.new_ones(1)])[consumer.index].all(1).repeat_interleave(consumer.windows.shape[2])
    system = covariance[stays][:, stays]
    target = weight @ covariance[:, stays]
    solution = torch.zeros_like(weight)
    solution[:, stays] = torch.cholesky_solve(target.mT, torch.linalg.cholesky(system)).mT
    new = solution.reshape(consumer.weight.shape).to(consumer.weight)
    return new, ((consumer.weight - new) * consumer.windows.mean(0)).sum((1, 2))


def flat_system(consumer: Consumer, damping: float = DAMPING) -> tuple[Tensor, Tensor]:
    """The weight (outputs, inputs) and the damped covariance of the inputs, in float64."""
    x = consumer.windows.flatten(1)
    x = x - x.mean(0, keepdim=True)
    covariance = (x.mT @ x).double().div_(len(x))
    covariance.diagonal().add_(damping * covariance.diagonal().mean().clamp_min(1e-12))
    return consumer.weight.flatten(1).double(), covariance
