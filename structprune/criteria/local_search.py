"""Which units stay, by local search on the second moments of what consumers read: a choice that knows of the refit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .reconstruction import DAMPING, flat_system, refitted
from .registry import criterion
from .views import Consumer, GroupView

# How much `osscar` holds weights to what they were, in shares of the mean variance of an input. With 0.1, as `obs` has
# it, choices trust in refits that other images do not bear out: EfficientNet-Lite0 had more KL, as cut and refitted.
HELD = 1.0
STEPS = 96  # of the greedy removal: a larger group loses several units at a step
SHARE = 1 / 8  # of the units that go, or that stay if they are fewer: as many are swapped at first
EFFORT = 2.0  # how many times as many units as go are moved at most while swapping
LEAST = 256  # and so many are moved if need be
GAIN = 1e-7  # of what is lost: a swap that wins less is none


@criterion(
    "obs",
    "rise of the next layer's output error when the channel goes and the others' weights are refitted",
    source="Hassibi & Stork, Optimal Brain Surgeon, 1993; over structures as Kurtic et al., ZipLM, NeurIPS 2023",
    needs=("samples", "widths"),
    sequential=True,
    squares=True,
    mend=refitted,
)
def obs(group: GroupView) -> Tensor:
    """Removes one unit after the other: that whose kernels M cost least, tr(W_M (H⁻¹_MM)⁻¹ W_Mᵀ), H being the
    (damped) covariance of the consumer's inputs, and refits the rest. Scores are the costs as shares of the consumers'
    output variance, made to rise in the order of removal, so that they compare over layers.

    It ranks for a least squares refit of the consumers (recovery `least_squares`), and is poor without one.
    """
    return elimination(group)


@criterion(
    "osscar",
    "greedy removal, then swaps, by what the next layers lose once they are refitted",
    source="Meng et al., OSSCAR, ICML 2024, arXiv 2403.12983: local search on the layer's Gram matrix",
    needs=("samples", "widths"),
    sequential=True,
    squares=True,
    mend=lambda group, consumer, kept: refitted(group, consumer, kept, HELD),
)
def osscar(group: GroupView) -> Tensor:
    """Removes units as `obs` does (of many a few at a time), then swaps units that stay for units that went, as long as
    the consumers lose less by it.

    What a choice costs is tr(W_R (H⁻¹_RR)⁻¹ W_Rᵀ) over the columns R that go, H being the (damped) covariance of the
    consumer's inputs: the squared error of the outputs after least squares, as a share of their variance, summed over
    consumers. It is exact for each set that is tried; sets are tried by one swap, or several at once while that helps.
    Units are swapped within their stratum, so that balanced blocks stay balanced. It ranks for a refit of the
    consumers (recovery `least_squares`), and is poor without one.
    """
    return search(group)[0]


def search(group: GroupView, *, swaps: bool = True, damping: float = HELD) -> tuple[Tensor, float]:
    """Finds the units that stay of a group.

    Args:
        group: With consumers, and how many units are kept.
        swaps: Whether the greedy choice is improved.
        damping: How much weights are held to what they were, in shares of the mean variance of an input.

    Returns:
        Scores (units,): all that stay are above all that go; and what the consumers lose, in shares of their outputs'
        variance, summed.
    """
    choice = _Choice(group, damping)
    choice.remove_greedily()
    if swaps:
        choice.swap()
    return choice.scores(), choice.lost


def elimination(group: GroupView) -> Tensor:
    """Runs `obs` on all consumers of a group at once.

    Args:
        group: With consumers, and how many units are kept.

    Returns:
        Scores (units,).
    """
    choice = _Choice(group, DAMPING)
    scores = torch.full((group.units,), torch.nan, dtype=torch.float64)
    floor = 0.0
    assert group.kept is not None
    for _ in range(group.units - group.kept):  # those that stay, stay in the order of what they would cost
        costs = choice.changes().masked_fill(choice.gone, torch.inf)
        unit = int(costs.argmin())
        floor = max(floor, float(costs[unit]))
        scores[unit] = floor
        choice.move(torch.tensor([unit]))
    scores[~choice.gone] = choice.changes()[~choice.gone].clamp_min(floor)
    return scores


class _Choice:
    """Which units of a group are gone, what that costs, and what each move would change."""

    def __init__(self, group: GroupView, damping: float) -> None:
        assert group.kept is not None
        self.systems = [_System(group, consumer, damping) for consumer in group.consumers]
        self.gone, self.lost = torch.zeros(group.units, dtype=torch.bool), 0.0
        strata = torch.zeros(group.units, dtype=torch.long) if group.strata is None else group.strata
        steps = (group.units - group.kept) // sum(group.rates)
        self.members = [(strata == number).nonzero()[:, 0] for number in range(len(group.rates))]
        self.quotas = [steps * rate for rate in group.rates]  # how many go of each stratum
        self.going = sum(self.quotas)

    def changes(self) -> Tensor:
        """By how much the loss would rise for each unit if it went, or fall if it came back: shape (units,)."""
        return torch.stack([system.changes(self.gone) for system in self.systems]).sum(0)

    def move(self, units: Tensor) -> None:
        """Removes units that are there, and brings back those that are gone; all of them one or the other."""
        if len(units):
            back = bool(self.gone[units[0]])
            self.gone[units] = not back
            self.lost += sum(system.move(self.gone, units, back) for system in self.systems)

    def remove_greedily(self) -> None:
        while left := self.going - int(self.gone.sum()):
            costs, chosen = self.changes().masked_fill(self.gone, torch.inf), []
            for members, quota in zip(self.members, self.quotas, strict=True):
                most = quota - int(self.gone[members].sum())
                chosen.append(members[costs[members].argsort(stable=True)[:most]])
            cheapest = torch.cat(chosen)
            count = min(left, -(-self.going // STEPS))
            self.move(cheapest[costs[cheapest].argsort(stable=True)[:count]])

    def swap(self) -> None:
        """Swaps many units at once, then fewer, and in the end one at a time, until nothing is won."""
        stay = len(self.gone) - self.going
        count = max(1, int(min(self.going, stay) * SHARE)) if self.going and stay else 0
        effort = max(LEAST, EFFORT * self.going)
        while count >= 1 and effort > 0:
            skipped = 0
            while effort > 0 and skipped < (stay if count == 1 else 1):
                effort -= 2 * count
                skipped = 0 if self._swapped(count, skipped) else skipped + 1
            count //= 2

    def _swapped(self, count: int, skipped: int) -> bool:
        """Whether it is better to do without the cheapest units, but for the `skipped` first, and to have others."""
        before, gone = self.lost, self.gone.clone()
        costs = self.changes().masked_fill(self.gone, torch.inf)
        order = costs.argsort(stable=True)
        self.move(order[skipped : skipped + min(count, len(order) - int(gone.sum()) - skipped)])
        gains, back = self.changes(), []
        for members, quota in zip(self.members, self.quotas, strict=True):
            own = members[self.gone[members]]
            back.append(own[gains[own].argsort(descending=True, stable=True)[: len(own) - quota]])
        self.move(torch.cat(back))
        if self.lost < before - GAIN * before:
            return True
        self.move((gone & ~self.gone).nonzero()[:, 0])
        self.move((self.gone & ~gone).nonzero()[:, 0])
        self.lost = before
        return False

    def scores(self) -> Tensor:
        changes = self.changes()
        most = changes[self.gone].max() if self.gone.any() else changes.new_zeros(())
        return torch.where(self.gone, changes, changes + 2 * most + 1e-12)


class _System:
    """One consumer's weights and inverse covariance, swept over the columns that are gone.

    `table` begins as H⁻¹ and `values` as Wᵀ; columns R are swept in and out of both (Goodnight, A tutorial on the sweep
    operator, The American Statistician, 1979). Where columns stay, `table` is the inverse of their covariance and
    `values` their refitted weights; where they are gone, minus the inverse of the block of H⁻¹, and the multipliers. In
    either case what a block of columns would change is |vᵀ T⁻¹ v|.
    """

    def __init__(self, group: GroupView, consumer: Consumer, damping: float) -> None:
        places = consumer.windows.shape[2]
        weight, covariance = flat_system(consumer, damping)
        self.energy = float((weight * (weight @ covariance)).sum()) or 1.0
        if len(weight) > weight.shape[1]:  # only products of columns matter
            weight = torch.linalg.qr(weight, mode="r").R
        self.values = weight.mT.contiguous()
        self.table = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        self.index = consumer.index.repeat_interleave(places, 0)  # of each column its units, -1 for none
        numbers = torch.arange(len(self.index))
        self.columns = [numbers[(self.index == unit).any(1)] for unit in range(group.units)]
        self.here = [unit for unit, own in enumerate(self.columns) if len(own)]
        sizes = {len(self.columns[unit]) for unit in self.here}
        apart = len(sizes) == 1 and consumer.index.shape[1] == 1
        self.even = torch.stack([self.columns[unit] for unit in self.here]) if apart else None
        self.known: Tensor | None = None  # the changes, until a column is moved

    def changes(self, gone: Tensor) -> Tensor:
        """What moving each unit would change, of the outputs' variance; shape (units,)."""
        if self.known is None:
            self.known = torch.zeros(len(self.columns), dtype=torch.float64)
            own = self._even_changes() if self.even is not None else self._single_changes(gone)
            self.known[self.here] = (own.abs() / self.energy).cpu()
        return self.known

    def _even_changes(self) -> Tensor:
        """The changes of the units that it has, where each has as many columns and none of another's."""
        assert self.even is not None
        if self.even.shape[1] == 1:
            column = self.even[:, 0]
            return self.values[column].square().sum(1) / self.table.diagonal()[column]
        blocks = self.table[self.even[:, :, None], self.even[:, None, :]]
        kernels = self.values[self.even]  # (units, columns, outputs)
        return (kernels * torch.linalg.solve(blocks, kernels)).sum((1, 2))

    def _single_changes(self, gone: Tensor) -> Tensor:
        """The same, one unit at a time."""
        changes = torch.zeros(len(self.here), dtype=torch.float64)
        for number, unit in enumerate(self.here):
            columns = self._moved(gone, [unit])
            values = self.values[columns]
            changes[number] = (values * torch.linalg.solve(self.table[columns][:, columns], values)).sum()
        return changes

    def _moved(self, gone: Tensor, units: Sequence[int] | Tensor) -> Tensor:
        """The columns that go or come back with units: a column is gone if any of its units is."""
        columns = torch.cat([self.columns[int(unit)] for unit in units]).unique()
        others = torch.cat([gone, gone.new_zeros(1)])  # the last is what -1 looks up
        others[torch.as_tensor(units)] = False
        return columns[~others[self.index[columns]].any(1)]

    def move(self, gone: Tensor, units: Tensor, back: bool) -> float:
        """Sweeps the columns of units in, or `back` out. Returns by how much the loss rises."""
        columns = self._moved(gone, units)
        if len(columns) or self.even is None:
            self.known = None
        if not len(columns):
            return 0.0
        across, values = self.table[:, columns], self.values[columns]
        inverse = torch.linalg.inv(across[columns])
        step, multipliers = inverse @ across.mT, inverse @ values
        self.table.addmm_(across, step, alpha=-1)
        self.values.addmm_(across, multipliers, alpha=-1)
        sign = -1.0 if back else 1.0
        self.table[columns], self.table[:, columns] = sign * step, sign * step.mT
        self.table[columns[:, None], columns] = -inverse
        self.values[columns] = sign * multipliers
        return float((values * multipliers).sum()) / self.energy
