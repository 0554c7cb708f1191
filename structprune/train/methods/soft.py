"""Soft filter pruning (He et al., IJCAI 2018; FPGM, CVPR 2019): filters go to zero after each epoch, and may return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ...errors import RecipeError
from ..method import TRAINING_METHODS, MethodKind, Training, TrainingMethod
from ..planned_units import PlannedSpec, PlannedUnits

if TYPE_CHECKING:
    from torch import Tensor, nn


class SoftSpec(PlannedSpec):
    """After each epoch the filters that a plan would remove are set to zero: SFP by `l2`, FPGM by `fpgm`."""

    exact_weights: ClassVar[bool] = True
    cut_by: ClassVar[Mapping[str, tuple[str, ...]]] = {"criterion": ("l1", "l1_greedy", "l2")}

    method: Literal["soft"] = Field(default="soft", description="the method's name")
    bounded: bool = Field(
        default=True,
        description="bound the gradients of filters that grow back by the largest of their layer's others; `false`: as "
        "in the paper's code",
    )


class Soft(TrainingMethod):
    """W ← W·mask after each epoch, the mask being a plan's by the present weights (algorithm 1 of SFP).

    All weights go on being updated, so that a filter may grow back and another go. The filters that are zero after the
    last epoch stay zero, and the run's plan by `l2` and the same budget removes them. A plan by `fpgm` need not: the
    filters nearest to the median need not be those at zero, so rank by `l2` after training by `fpgm`.

    Biases and BatchNorms are left as they are, as in the paper: with a scale of zero as well no gradient would reach
    the filter. A zero filter so leaves a constant in its channel, which `recover: [means]` gives to the consumers.
    The running statistics of BatchNorms are of before the zeroing: they are taken anew after each, on training data, so
    that what is measured then, and the network that is handed out, is the one without these filters.

    Behind a BatchNorm the gradient of a filter at zero is γ/√eps ≈ 300 times what it is of others: one update by SGD
    throws it to a size at which it is the largest of its layer, keeps its place at the next zeroing, and no longer
    learns. So the gradients of filters that were zeroed after the last epoch are bounded, unless `bounded` is off: at 4
    times fewer multiply-adds, six epochs of MNIST then end at 0.3 in place of 0.95.

    Usual errors: masked gradients, so that nothing grows back; filters of one layer of a residual sum zeroed alone
    (here all coupled filters of a unit are); no zeroing after the last epoch; statistics of before the zeroing, with
    which the network answers by chance; an average of weights (refused); gradients of zero filters left as large as a
    variance of zero makes them.
    """

    def __init__(self, spec: SoftSpec) -> None:
        self.spec = spec
        self.gone: dict[str, list[int]] = {}  # the units whose filters were zeroed after the last epoch

    def start(self, training: Training) -> None:
        self.training, self.units = training, PlannedUnits(training, self.spec)
        if not self.units.groups:
            raise RecipeError("method soft needs channels that can go, and there are none")
        self.units.removed()  # a budget that no plan meets is refused now

    def after_backward(self, model: nn.Module) -> None:
        import torch

        if not self.spec.bounded:
            return
        with torch.no_grad():
            weights: dict[int, Tensor] = {}
            all_places: dict[int, Tensor] = {}
            for weight, places in self.units.filters(self.gone):  # one may be of several groups
                weights[id(weight)] = weight
                all_places[id(weight)] = all_places.get(id(weight), places) | places
            for key, places in all_places.items():
                weight = weights[key]
                if weight.grad is None or bool(places.all()):
                    continue
                norms = _norms(weight.grad, places)
                ratios = norms[~places].max() / norms.clamp_min(torch.finfo(norms.dtype).tiny)
                scale = torch.where(places, ratios.clamp_max(1.0), 1.0)
                weight.grad.mul_(scale)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        import torch

        self.gone = self.units.removed()
        with torch.no_grad():
            for weight, places in self.units.filters(self.gone):
                weight.masked_fill_(places, 0.0)
        self.training.reestimate_statistics()

    def state(self) -> Any:
        return [self.units.state(), self.gone]

    def restore(self, state: Any) -> None:
        units, self.gone = state
        self.units.restore(units)


def _norms(gradient: Tensor, places: Tensor) -> Tensor:
    """The norm of what each of `places` spreads over, in their shape."""
    inner = [axis for axis, size in enumerate(places.shape) if size == 1]
    return gradient.square().sum(inner, keepdim=True).sqrt() if inner else gradient.abs()


TRAINING_METHODS.add(MethodKind("soft", "filters zeroed after each epoch (He et al. 2018, 2019)", SoftSpec, Soft))
