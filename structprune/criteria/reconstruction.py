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


@criterion(
    "obs",
    "rise of the next layer's output error when the channel goes and the others' weights are refitted",
    source="Hassibi & Stork, Optimal Brain Surgeon, 1993; over structures as Kurtic et al., ZipLM, NeurIPS 2023",
    needs=("samples", "widths"),
    sequential=True,
    squares=True,
    mend=lambda group, consumer, kept: refitted(group, consumer, kept),
)
def obs(group: GroupView) -> Tensor:
    """Removes one unit after the other: that whose kernels M cost least, tr(W_M (H⁻¹_MM)⁻¹ W_Mᵀ), H being the
    (damped) covariance of the consumer's inputs, and refits the rest. Scores are the costs as shares of the consumers'
    output variance, made to rise in the order of removal, so that they compare over layers.

    It ranks for a least squares refit of the consumers (recovery `least_squares`), and is poor without one.
    """
    return elimination(group)


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


def refitted(group: GroupView, consumer: Consumer, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The weight by least squares on the kept units' windows, zero for others, and the offset that keeps the outputs'
    means; `kept` is bool (units,)."""
    weight, covariance = _flat(consumer)
    stays = torch.cat([kept, kept.new_ones(1)])[consumer.index].all(1).repeat_interleave(consumer.windows.shape[2])
    system = covariance[stays][:, stays]
    target = weight @ covariance[:, stays]
    solution = torch.zeros_like(weight)
    solution[:, stays] = torch.cholesky_solve(target.mT, torch.linalg.cholesky(system)).mT
    new = solution.reshape(consumer.weight.shape).to(consumer.weight)
    return new, ((consumer.weight - new) * consumer.windows.mean(0)).sum((1, 2))


def _flat(consumer: Consumer) -> tuple[Tensor, Tensor]:
    """The weight (outputs, inputs) and the damped covariance of the inputs, in float64."""
    x = consumer.windows.flatten(1)
    x = x - x.mean(0, keepdim=True)
    covariance = (x.mT @ x).double().div_(len(x))
    covariance.diagonal().add_(DAMPING * covariance.diagonal().mean().clamp_min(1e-12))
    return consumer.weight.flatten(1).double(), covariance


def elimination(group: GroupView) -> Tensor:
    """Runs `obs` on all consumers of a group at once."""
    states = [_State(group, consumer) for consumer in group.consumers]
    scores = torch.full((group.units,), torch.nan, dtype=torch.float64)
    floor, left = 0.0, torch.ones(group.units, dtype=torch.bool)
    assert group.kept is not None
    each = [state.costs() for state in states]
    for _ in range(group.units - group.kept):  # those that stay, stay in the order of what they would cost
        costs = torch.stack(each).sum(0)
        costs[~left] = torch.inf
        unit = int(costs.argmin())
        floor = max(floor, float(costs[unit]))
        scores[unit], left[unit] = floor, False
        for number, state in enumerate(states):
            if state.remove(unit):
                each[number] = state.costs()
    scores[left] = torch.stack(each).sum(0)[left].clamp_min(floor)
    return scores


class _State:
    """One consumer's weights and inverse covariance while units are removed."""

    def __init__(self, group: GroupView, consumer: Consumer) -> None:
        places = consumer.windows.shape[2]
        self.weight, covariance = _flat(consumer)
        self.gone = torch.zeros(len(covariance), dtype=torch.bool)
        self.energy = float((self.weight * (self.weight @ covariance)).sum()) or 1.0
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        columns = torch.arange(len(consumer.index) * places).reshape(-1, places)
        self.columns = [columns[(consumer.index == unit).any(1)].flatten() for unit in range(group.units)]
        self.here = [unit for unit, own in enumerate(self.columns) if len(own)]
        sizes = {len(self.columns[unit]) for unit in self.here}
        apart = len(sizes) == 1 and consumer.index.shape[1] == 1
        self.even = torch.stack([self.columns[unit] for unit in self.here]) if apart else None

    def costs(self) -> Tensor:
        """What the removal of each unit would add to the error, as a share of the outputs' variance."""
        costs = torch.zeros(len(self.columns), dtype=torch.float64)
        costs[self.here] = self._costs().cpu()
        return costs

    def _costs(self) -> Tensor:
        """Those of the units that it has."""
        if self.even is None:
            return torch.tensor([self._cost(self.columns[unit]) for unit in self.here], dtype=torch.float64)
        if self.even.shape[1] == 1:
            column = self.even[:, 0]
            return (
                self.weight[:, column].square().sum(0) / self.inverse.diagonal()[column].clamp_min(1e-300) / self.energy
            )
        blocks = self.inverse[self.even[:, :, None], self.even[:, None, :]]
        kernels = self.weight[:, self.even].permute(1, 2, 0)  # (units, columns, outputs)
        gone = blocks.diagonal(dim1=1, dim2=2).amax(1) <= 0
        blocks[gone] = torch.eye(blocks.shape[1], dtype=blocks.dtype, device=blocks.device)
        return (kernels * torch.linalg.solve(blocks, kernels)).sum((1, 2)) / self.energy

    def _cost(self, columns: Tensor) -> float:
        columns = columns[~self.gone[columns]]
        if not len(columns):
            return 0.0
        kernels = self.weight[:, columns].mT
        block = self.inverse[columns][:, columns]
        return float((kernels * torch.linalg.solve(block, kernels)).sum()) / self.energy

    def remove(self, unit: int) -> bool:
        """Whether that changed anything."""
        columns = self.columns[unit]
        columns = columns[~self.gone[columns]]  # a position may hang on a unit that went before
        if not len(columns):
            return False
        self.gone[columns] = True
        rows = self.inverse[columns]
        step = torch.linalg.solve(rows[:, columns], rows)  # (columns, inputs)
        self.weight -= self.weight[:, columns] @ step
        self.inverse -= rows.mT @ step
        self.weight[:, columns] = 0
        self.inverse[columns], self.inverse[:, columns] = 0, 0
        return True
