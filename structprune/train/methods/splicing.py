"""Dynamic network surgery (Guo, Yao & Chen, NeurIPS 2016) by units: what was cut still learns and may be spliced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ...seeds import derived
from ...strict_specs import Number
from ..masked_method import MaskedMethod
from ..method import TRAINING_METHODS, MethodKind, Training
from ..planned_units import PlannedSpec

if TYPE_CHECKING:
    from torch import nn

    from ...calibration import Batch


class SplicingSpec(PlannedSpec):
    """Units are cut below one size and spliced again above a larger one, to the widths that the budget leaves."""

    exact_weights: ClassVar[bool] = True
    cut_by: ClassVar[Mapping[str, tuple[str, ...]]] = {"criterion": ("l1", "l1_greedy", "l2")}

    method: Literal["splicing"] = Field(default="splicing", description="the method's name")
    margin: Number = Field(default=0.1, ge=0, lt=1, description="how far the two sizes are from the one between them")
    decay: Number = Field(default=1e-3, ge=0, description="γ: masks change with probability 1 / (1 + γ·updates)")


class Splicing(MaskedMethod):
    """W ← W - β·∂L/∂(W⊙T), for all weights (equation 5), and T = 0 below a, 1 above b, else as it was (equation 3).

    W is what layers have of a unit: the kernels that take its channels in; T is one number a unit, and sizes are norms.
    In the paper a and b are 0.9 and 1.1 times a size that the layer's weights had at first. Here that size is the one
    between the units that the budget keeps and the others as they are by now, so that the budget is met whatever
    happens to the weights; where blocks of a grouped convolution stay equally long, each has its own. T changes with a
    probability that falls, so that the weights settle. The plan that gives the widths and the first T is made once, at
    the start. After each epoch the units at T = 1 stay and the others are zero, with the largest of the others or
    without the smallest where the budget asks for it; training goes on from the weights with all of them.

    Usual errors: gradients multiplied by T, so that nothing is ever spliced; a single threshold, at which units come
    and go in each update; masks of filters in front of a BatchNorm, whose gradient explodes at a variance of zero; a
    network that is cut at the end by size alone, where sizes lie close to each other and T was another.
    """

    def __init__(self, spec: SplicingSpec) -> None:
        super().__init__()
        self.spec = spec
        self.is_masked = False

    def start(self, training: Training) -> None:
        self.mask(training, self.spec)
        self.training = training

    def mix(self, batch: Batch) -> Batch:
        import torch

        if not self.is_masked:
            self.masks.units.take_out()
            noise = torch.Generator().manual_seed(derived(self.training.seed, self.updates))
            if float(torch.rand((), generator=noise)) < 1 / (1 + self.spec.decay * self.updates):
                self._change()
            self.masks.units.put_in(self.masks.gates())
            self.is_masked = True
        return batch

    def _change(self) -> None:
        for name, all_sizes in self.masks.sizes(self.masks.weights()).items():
            for units, width in self.masks.parts(name):
                if width == len(units):
                    continue
                sizes, active = all_sizes[units], self.masks.active[name][units]
                ordered = sizes.sort(descending=True).values
                middle = (ordered[width - 1] + ordered[width]) / 2
                active &= sizes >= (1 - self.spec.margin) * middle
                active |= sizes > (1 + self.spec.margin) * middle
                self.masks.active[name][units] = active

    def after_backward(self, model: nn.Module) -> None:
        self.masks.units.take_out()  # gradients stay as they are: those of W⊙T are W's
        self.updates += 1
        self.is_masked = False

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        import torch

        gates = {}
        for name, sizes in self.masks.sizes(self.masks.weights()).items():
            first = sizes + self.masks.active[name] * (sizes.max() + 1)  # active ones, the largest of them first
            gates[name] = torch.zeros_like(sizes)
            for units, width in self.masks.parts(name):
                gates[name][units[first[units].argsort(descending=True, stable=True)[:width]]] = 1
        self.masks.units.fold(gates)
        self.training.reestimate_statistics()


TRAINING_METHODS.add(
    MethodKind("splicing", "units cut and spliced again by two sizes (Guo et al. 2016)", SplicingSpec, Splicing)
)
