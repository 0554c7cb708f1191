"""NeST (Dai, Yin & Jha, IEEE TC 2019) by units: a seed grows by gradient, and is pruned by magnitude afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ...errors import RecipeError
from ...strict_specs import Number, Whole
from ..masked_method import MaskedMethod
from ..method import TRAINING_METHODS, MethodKind, Training
from ..planned_units import PlannedSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...calibration import Batch


class NestSpec(PlannedSpec):
    """Few units are active at first; others join to more than the budget leaves, and the smallest go again."""

    exact_weights: ClassVar[bool] = True
    cut_by: ClassVar[Mapping[str, tuple[str, ...]]] = {"criterion": ("l1", "l1_greedy", "l2")}

    method: Literal["nest"] = Field(default="nest", description="the method's name")
    seed: Number = Field(
        default=0.25, gt=0, le=1, description="the share of the budget's units that is active at first"
    )
    peak: Number = Field(default=1.3, ge=1, description="how many times the budget's units are active at most")
    interval: Whole = Field(default=10, ge=1, description="updates of the weights between changes")
    grow: Number = Field(default=0.4, gt=0, lt=1, description="the share of training in which units join")
    prune: Number = Field(default=0.7, gt=0, le=1, description="the share of training after which the budget is met")

    @model_validator(mode="after")
    def _fits(self) -> NestSpec:
        if self.prune <= self.grow:
            raise ValueError(f"prune={self.prune:g} is not after grow={self.grow:g}: units join first, and go later")
        return self


class Nest(MaskedMethod):
    """Dormant units of the largest |mean gradient| join, evenly until `grow`; the smallest go, evenly until `prune`.

    Gradients are those of what layers have of a unit, the kernels that take its channels in, averaged over all updates
    since the last change, and sizes are norms of these kernels. A dormant unit's kernels are zero, which is its
    removal; they start from zero, with moments of zero in the optimiser, and go where the gradient pulls them. The
    paper grows single connections, neurons and feature maps by the same gradients, and gives new ones weights of the
    gradient's size, which the first update does here. The seed are the units with the largest kernels. How
    many units of a group the budget leaves is decided by a plan at the start; a block of a grouped convolution is like
    a group of its own.

    Usual errors: gradients of one batch, which are mostly noise; gradients of the masked network, which are zero where
    something is to grow; the mean of absolute gradients in place of the size of the mean; pruning at once to the
    budget, which leaves the others no time to take over; growth from zero on both sides, kernels and filters, through
    which no gradient ever flows; a network that is larger than the budget kept as the best epoch (none is).
    """

    def __init__(self, spec: NestSpec) -> None:
        super().__init__()
        self.spec = spec
        self.count = 0
        self.settled = False

    def start(self, training: Training) -> None:
        import torch

        spec, total = self.spec, training.epochs * training.updates
        self.growth_end, self.pruning_end = (
            int(share * total) // spec.interval * spec.interval for share in (spec.grow, spec.prune)
        )
        if not 0 < self.growth_end < self.pruning_end:
            raise RecipeError(
                f"method nest changes units every {spec.interval} updates, and this training's {total} leave no time "
                f"to grow until {spec.grow:g} of it and to prune until {spec.prune:g}: set a smaller interval"
            )
        self.mask(training, spec)
        self.optimizer = training.optimizer
        self.sums = [torch.zeros_like(parameter) for parameter in self.masks.units.parameters]
        sizes = self.masks.sizes(self.masks.weights())
        for name, active in self.masks.active.items():
            for units, width in self.masks.parts(name):
                active[units] = False
                number = self.number(width, len(units))
                active[units[sizes[name][units].argsort(descending=True, stable=True)[:number]]] = True
        self._hold(self.masks.active)

    def number(self, width: int, units: int) -> int:
        """How many of so many units are active by now, where the budget leaves `width` of them."""
        first = min(width, max(1, round(self.spec.seed * width)))
        most = min(units, round(self.spec.peak * width))
        if self.updates <= self.growth_end:
            return first + (most - first) * self.updates // self.growth_end
        return most - (most - width) * min(self.updates - self.growth_end, self.pruning_end - self.growth_end) // (
            self.pruning_end - self.growth_end
        )

    def mix(self, batch: Batch) -> Batch:
        self.masks.units.take_out()  # what the end of an epoch put in
        return batch

    def after_backward(self, model: nn.Module) -> None:
        gradients = [parameter.grad for parameter in self.masks.units.parameters]
        if self.updates < self.growth_end and all(each is None or each.isfinite().all() for each in gradients):
            for total, gradient in zip(self.sums, gradients, strict=True):
                if gradient is not None:
                    total += gradient
            self.count += 1

    def after_step(self, model: nn.Module) -> None:
        before = {name: active.clone() for name, active in self.masks.active.items()}
        self.updates += 1
        if self.updates % self.spec.interval == 0 and self.updates <= self.pruning_end:
            self._change()
            self.settled = self.updates == self.pruning_end
        self._hold(before)

    def _change(self) -> None:
        """Has as many units active as there are to be by now."""
        import torch

        parameters = self.masks.units.parameters
        totals = {id(parameter): total for parameter, total in zip(parameters, self.sums, strict=True)}
        slopes, sizes = self.masks.sizes(totals), self.masks.sizes(self.masks.weights())
        for name, all_active in self.masks.active.items():
            for units, width in self.masks.parts(name):
                active, number = all_active[units], self.number(width, len(units))
                difference = number - int(active.sum())
                if difference > 0 and self.count:
                    slope = torch.where(active, -torch.inf, slopes[name][units])
                    active[slope.argsort(descending=True, stable=True)[:difference]] = True
                elif difference < 0:
                    size = torch.where(active, sizes[name][units], torch.inf)
                    active[size.argsort(stable=True)[:-difference]] = False
                all_active[units] = active
        for total in self.sums:
            total.zero_()
        self.count = 0

    def _hold(self, before: Mapping[str, Tensor]) -> None:
        """Keeps the kernels of dormant units, and of those that were dormant `before`, at zero, and their moments."""
        from ..masked_units import hold_at_zero

        gates = {name: (active & before[name]).float() for name, active in self.masks.active.items()}
        hold_at_zero(self.masks.units, gates, self.optimizer)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        self.masks.units.fold(self.masks.gates())

    def state(self) -> Any:
        return [super().state(), self.count, self.settled, self.sums]

    def restore(self, state: Any) -> None:
        masks, self.count, self.settled, sums = state
        super().restore(masks)
        for total, kept in zip(self.sums, sums, strict=True):
            total.copy_(kept)


TRAINING_METHODS.add(
    MethodKind("nest", "a seed that grows by gradient and is pruned by magnitude (Dai et al. 2019)", NestSpec, Nest)
)
