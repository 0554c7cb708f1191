"""DSD, dense-sparse-dense (Han et al., ICLR 2017) by units: the smallest are zero for a while, then free again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from ...errors import RecipeError
from ...strict_specs import Number
from ..masked_method import MaskedMethod
from ..method import TRAINING_METHODS, MethodKind, MethodSpec, Training
from ..planned_units import PlannedSpec, speeds

if TYPE_CHECKING:
    from torch import nn

    from ...calibration import Batch
    from ...plan.allocations import Load
    from ...plan.budget import Choice, Widths
    from ...recipe import PruneSpec
    from ...records import Scores

SPARSITY = 0.3  # the paper's, for convolutional networks


class DsdSpec(PlannedSpec):
    """Training goes on dense, then with the smallest units at zero, then dense again, or slim in the end."""

    exact_weights: ClassVar[bool] = True
    cut_by: ClassVar[Mapping[str, tuple[str, ...]]] = {"criterion": ("l1", "l1_greedy", "l2")}

    method: Literal["dsd"] = Field(default="dsd", description="the method's name")
    dense: Number = Field(default=0.4, ge=0, lt=1, description="the share of training before units go to zero")
    sparse: Number = Field(default=0.3, gt=0, lt=1, description="the share of training in which they are at zero")
    lr: Number = Field(default=0.1, gt=0, description="what the learning rate is multiplied by in the rest of it")
    end: Literal["dense", "slim"] = Field(
        default="dense",
        description="what the rest ends in: the dense network, or for its second half one whose smallest units are "
        "zero once more, so that the cut removes them",
    )
    sparsity: Number | None = Field(
        default=None, gt=0, lt=1, description="the share of each group's units at zero where it ends dense; 0.3"
    )

    @model_validator(mode="after")
    def _fits(self) -> DsdSpec:
        if self.dense + self.sparse >= 1:
            raise ValueError(
                f"dense={self.dense:g} and sparse={self.sparse:g} leave nothing of training in which the units are "
                "free again: give less than 1 in all"
            )
        if self.sparsity is not None and (self.end == "slim" or self.budget is not None):
            other = f"budget={self.budget}" if self.budget is not None else "end=slim, which goes by the budget"
            raise ValueError(f"sparsity={self.sparsity:g} does not go with {other}: leave one of them out")
        if self.end == "dense" and (names := speeds(self.budget or {})):
            raise ValueError(
                f"end=dense has a budget of {' and '.join(names)}, and what widths cost is measured for a cut that "
                "follows: give one of macs, params or channels, or sparsity"
            )
        return self

    @property
    def plans(self) -> bool:  # type: ignore[override]
        """Whether it plans the cut that follows: one that ends dense needs none, and may be of `finetune`."""
        return self.end == "slim"

    def before_cut(self, prune: PruneSpec) -> MethodSpec:  # type: ignore[override]
        return super().before_cut(prune) if self.plans else self

    def cautions(self, prune: PruneSpec) -> Iterator[str]:
        if self.plans:
            yield from super().cautions(prune)


class Dsd(MaskedMethod):
    """W ← W·mask in a middle part of training, the mask being of the largest units at its start (algorithm 1).

    W is what layers have of a unit: the kernels that take its channels in, which are zero after each update of that
    part, with the optimiser's moments. Which units those are is decided once, by a plan by the present weights. Then
    they are free again and grow from zero, at a tenth of the schedule's learning rate; their filters, which had no
    gradient meanwhile, are as they were. With `end: slim` the rest of the training is parted in two, and for its second
    half the smallest units by then are zero once more, to the widths that the budget leaves.

    Usual errors: filters zeroed in front of a BatchNorm, whose gradient explodes at a variance of zero; filters and
    kernels both at zero, between which no gradient ever flows again; moments that move weights at zero, or throw them
    when they are free; the full learning rate at the end, which leaves the minimum that the sparse part has found; a
    mask by the weights before training; the sparse network handed out as the best epoch (no epoch before the last
    part is kept by `keep_best`).
    """

    def __init__(self, spec: DsdSpec) -> None:
        super().__init__()
        self.spec = spec

    def start(self, training: Training) -> None:
        spec, total = self.spec, training.epochs * training.updates
        self.first, self.second = round(spec.dense * total), round((spec.dense + spec.sparse) * total)
        self.third = (self.second + total) // 2 if spec.end == "slim" else math.inf
        borders = [self.first, self.second, *([int(self.third)] if spec.end == "slim" else []), total]
        if sorted({*borders}) != borders:
            raise RecipeError(
                f"method dsd parts a training at updates {', '.join(map(str, borders[:-1]))} of {total}, which leaves "
                "one of its parts no update: train for longer, or set dense and sparse"
            )
        self.optimizer = training.optimizer
        if spec.end == "dense" and spec.budget is None:
            loose = spec.model_copy(update={"budget": {"channels": 1.0}, "align": spec.align or 1})
            self.mask(training, loose, self._shares)
        else:
            self.mask(training, spec)  # a budget that no plan meets is refused now
        self.masks.active = self.masks.all_active()
        self._turn()

    def _shares(self, choices: list[Choice], scores: Scores, load: Load) -> Widths:
        """The widths that leave out the same share of every group, the nearest that it may have."""
        sparsity = SPARSITY if self.spec.sparsity is None else self.spec.sparsity
        return {choice.group.name: choice.nearest(choice.group.units * (1 - sparsity)) for choice in choices}

    @property
    def settled(self) -> bool:  # type: ignore[override]
        """Whether the last part has begun."""
        return self.updates > self.second and (self.spec.end == "dense" or self.updates > self.third)

    def lr_factor(self, update: int) -> float:
        return self.spec.lr if update >= self.second else 1.0

    def mix(self, batch: Batch) -> Batch:
        self.masks.units.take_out()  # what the end of an epoch put in
        return batch

    def after_step(self, model: nn.Module) -> None:
        self.updates += 1
        self._turn()

    def _turn(self) -> None:
        """Decides what is at zero from the next update on, and keeps it there."""
        from ..masked_units import hold_at_zero

        if self.updates in (self.first, self.third):
            self.masks.choose()
        if self.first <= self.updates <= self.second or self.updates >= self.third:
            hold_at_zero(self.masks.units, self.masks.gates(), self.optimizer)
        if self.updates == self.second:
            self.masks.active = self.masks.all_active()

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        if self.spec.end == "slim" and self.settled:
            self.masks.units.fold(self.masks.gates())


TRAINING_METHODS.add(
    MethodKind("dsd", "the smallest units at zero for a while, then free again (Han et al. 2017)", DsdSpec, Dsd)
)
