"""Deep R (Bellec, Kappel, Maass & Legenstein, ICLR 2018) by units: a random walk over which ones are active."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ...seeds import derived
from ...strict_specs import Number
from ..masked_method import MaskedMethod
from ..method import TRAINING_METHODS, MethodKind, Training
from ..planned_units import PlannedSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...calibration import Batch


class DeepRSpec(PlannedSpec):
    """As many units are active as the budget leaves; one whose gate crosses zero makes way for another."""

    exact_weights: ClassVar[bool] = True
    cut_by: ClassVar[Mapping[str, tuple[str, ...]]] = {"criterion": ("l1", "l1_greedy", "l2")}

    method: Literal["deep_r"] = Field(default="deep_r", description="the method's name")
    lr: Number = Field(default=0.05, gt=0, description="η: learning rate of the gates")
    strength: Number = Field(default=0.01, ge=0, description="α: the pull of the gates to zero")
    temperature: Number = Field(default=1e-3, ge=0, description="T: how far the gates walk at random")


class DeepR(MaskedMethod):
    """θ ← θ - η·∂E/∂θ - η·α + √(2ηT)·ν for active units; one at θ < 0 becomes dormant, and another wakes at 0.

    That is algorithm 1 with units for connections: θ is a gate on what layers have of a unit, the kernels that take
    its channels in, whose signs stay their own. Dormant units have a gate of zero, which is their removal, and do not
    move. Which of them wakes is drawn. How many units of a group are active never changes: as many as a plan at the
    start keeps. Gates start at 1, and are folded into the weights where an epoch ends.

    Usual errors: noise or the pull on dormant units, which then wake by themselves; waking the ones with the largest
    gradient (that is RigL); noise of a size that does not fall with the learning rate as √η; gates that may be
    negative, so that no unit ever goes.
    """

    def __init__(self, spec: DeepRSpec) -> None:
        super().__init__()
        self.spec = spec
        self.is_gated = False

    def start(self, training: Training) -> None:
        self.mask(training, self.spec)
        self.training = training
        self.gates: dict[str, Tensor] = {name: gate.requires_grad_() for name, gate in self.masks.gates().items()}

    def mix(self, batch: Batch) -> Batch:
        if not self.is_gated:
            self.masks.units.take_out()
            self.masks.units.put_in(self.gates)
            self.is_gated = True
        return batch

    def after_backward(self, model: nn.Module) -> None:
        import torch

        self.masks.units.backward()
        noise = torch.Generator().manual_seed(derived(self.training.seed, self.updates))
        with torch.no_grad():
            for name, gate in self.gates.items():
                walk = torch.randn(gate.shape, generator=noise).to(gate.device)
                order = torch.randperm(len(gate), generator=noise).to(gate.device)
                if gate.grad is not None and gate.grad.isfinite().all():
                    self.walk(name, gate.grad, walk, order)
                gate.grad = None
        self.updates += 1
        self.is_gated = False

    def walk(self, name: str, gradient: Tensor, noise: Tensor, order: Tensor) -> None:
        """One step of the gates of a group; dormant units wake in `order`, those that have just gone too."""
        import torch

        spec, gate, active = self.spec, self.gates[name], self.masks.active[name]
        step = -spec.lr * (gradient + spec.strength) + math.sqrt(2 * spec.lr * spec.temperature) * noise
        gate += step * active
        active &= gate >= 0
        for units, width in self.masks.parts(name):
            among = torch.isin(order, units)
            waking = order[among & ~active[order]][: width - int(active[units].sum())]
            active[waking] = True
            gate[waking] = 0
        gate *= active

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        self.masks.units.fold(self.gates)

    def state(self) -> Any:
        return [super().state(), {name: gate.detach() for name, gate in self.gates.items()}]

    def restore(self, state: Any) -> None:
        masks, gates = state
        super().restore(masks)
        for name, gate in self.gates.items():
            gate.data.copy_(gates[name])


TRAINING_METHODS.add(MethodKind("deep_r", "a random walk over active units (Bellec et al. 2018)", DeepRSpec, DeepR))
