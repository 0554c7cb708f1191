"""RigL (Evci et al., ICML 2020) by units: the smallest are dropped, others grow where the gradient is large."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ...strict_specs import Number, Whole
from ..masked_method import MaskedMethod
from ..method import TRAINING_METHODS, MethodKind, Training
from ..planned_units import PlannedSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...calibration import Batch


class RiglSpec(PlannedSpec):
    """Of each group as many units are active from the start as the budget leaves; which ones changes on the way."""

    exact_weights: ClassVar[bool] = True
    cut_by: ClassVar[Mapping[str, tuple[str, ...]]] = {"criterion": ("l1", "l1_greedy", "l2")}

    method: Literal["rigl"] = Field(default="rigl", description="the method's name")
    interval: Whole = Field(default=100, ge=1, description="ΔT: updates of the weights between changes")
    fraction: Number = Field(default=0.3, gt=0, le=1, description="α: the share of active units that changes at first")
    end: Number = Field(default=0.75, gt=0, le=1, description="the share of training after which nothing changes")


class Rigl(MaskedMethod):
    """Algorithm 1 with units for weights, over what layers have of a unit: the kernels that take its channels in.

    Every ΔT updates, in place of an update, in each group (and each block of a grouped convolution) the k = f·n units
    whose kernels are smallest are dropped, and as many inactive ones whose kernels have the largest gradients grow, f
    being α/2·(1 + cos(π·t/T_end)). Kernels of inactive units are zero, which is the removal of the unit; those of new
    ones start at zero, with moments of zero in the optimiser. The filters of an inactive unit stand still meanwhile,
    and are zeroed where an epoch ends.

    Usual errors: gradients of the masked network in place of dense ones, which are zero where something is to grow;
    filters masked in front of a BatchNorm, whose gradient explodes at a variance of zero; moments that move dropped
    weights on; a drop fraction without decay; growing until the end, so that the last ones grown are untrained.
    """

    def __init__(self, spec: RiglSpec) -> None:
        super().__init__()
        self.spec = spec

    def start(self, training: Training) -> None:
        self.mask(training, self.spec)
        self.optimizer = training.optimizer
        self.last = self.spec.end * training.epochs * training.updates
        self._hold()

    def fraction(self) -> float:
        """The share of active units that changes at this update: α/2·(1 + cos(π·t/T_end))."""
        return self.spec.fraction / 2 * (1 + math.cos(math.pi * self.updates / self.last))

    def mix(self, batch: Batch) -> Batch:
        self.masks.units.take_out()  # what the end of an epoch put in
        return batch

    def after_backward(self, model: nn.Module) -> None:
        if self.updates and self.updates % self.spec.interval == 0 and self.updates < self.last:
            self._change()
            for parameter in model.parameters():
                parameter.grad = None  # the change stands in place of the update
        self.updates += 1

    def after_step(self, model: nn.Module) -> None:
        self._hold()

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        self.masks.units.fold(self.masks.gates())

    def _change(self) -> None:
        import torch

        gradients = {id(p): p.grad for p in self.masks.units.parameters if p.grad is not None}
        sizes, slopes = self.masks.sizes(self.masks.weights()), self.masks.sizes(gradients)
        for name, all_active in self.masks.active.items():
            before = all_active.clone()
            for units, _ in self.masks.parts(name):
                active, size, slope = before[units], sizes[name][units], slopes[name][units]
                number = min(int(self.fraction() * int(active.sum())), int((~active).sum()))
                active[torch.where(active, size, torch.inf).argsort(stable=True)[:number]] = False
                active[torch.where(active, -torch.inf, slope).argsort(descending=True, stable=True)[:number]] = True
                all_active[units] = active
            self._hold({name: all_active & ~before})  # a unit that is dropped and grows at once stays as it was

    def _hold(self, new: Mapping[str, Tensor] | None = None) -> None:
        """Keeps the kernels of inactive units, and their moments, at zero; those of `new` ones are set to it."""
        from ..masked_units import hold_at_zero

        gates = self.masks.gates()
        for name, units in (new or {}).items():
            gates[name][units] = 0
        hold_at_zero(self.masks.units, gates, self.optimizer)


TRAINING_METHODS.add(
    MethodKind("rigl", "units dropped by size and grown by gradient (Evci et al. 2020)", RiglSpec, Rigl)
)
