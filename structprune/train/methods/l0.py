"""L0 regularisation by hard concrete gates (Louizos, Welling & Kingma, ICLR 2018), on coupled units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...seeds import derived
from ...strict_specs import Number
from ..learned_gates import PENALTY, GateSpec, LearnedGates
from ..method import TRAINING_METHODS, MethodKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..gated_units import Gates

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1  # section 4: the temperature, and what the concrete distribution is stretched to


class L0Spec(GateSpec):
    """Each unit gets a gate that is learned; what the open ones cost in the mean is held to the budget."""

    method: Literal["l0"] = Field(default="l0", description="the method's name")
    lr: Number = Field(default=0.1, gt=0, description="learning rate of the gates, by Adam")
    start: Number = Field(default=0.1, gt=0, lt=1, description="the share of gates that is closed at first")


def sample(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """Hard concrete gates for numbers drawn from (0, 1) (equations 10 and 11)."""
    concrete = ((uniform.log() - (1 - uniform).log() + log_alpha) / BETA).sigmoid()
    return (concrete * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def probability_open(log_alpha: Tensor) -> Tensor:
    """How probable it is that a gate is not zero (equation 12): σ(log α - β·log(-γ/ζ))."""
    return (log_alpha - BETA * math.log(-GAMMA / ZETA)).sigmoid()


def settled(log_alpha: Tensor) -> Tensor:
    """The gates of the finished network, which are not drawn (equation 13)."""
    return (log_alpha.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


class L0(LearnedGates):
    """Gates z = min(1, max(0, s·(ζ - γ) + γ)), s being concrete, one draw an update; their log α are learned.

    The paper adds λ·Σ P(z ≠ 0) to the loss. Here each unit weighs what it costs, and λ is found: see `learned_gates`.
    The mean cost is a sum of products of P(z ≠ 0) over the axes of each op. What an epoch ends with are the gates that
    are not drawn, less the units of which it is least probable that they are open.

    Usual errors: gates on filters in front of a BatchNorm, which undoes them; a penalty on log α or on the gates in
    place of P(z ≠ 0); gates drawn at test time, or not stretched beyond [0, 1], so that none is exactly zero; one draw
    for each use of a unit where layers are coupled; a learning rate of the weights for the gates, which then hardly
    move in a short training; an average of weights (refused).
    """

    spec: L0Spec

    def initial(self, units: int, noise: torch.Generator) -> Tensor:
        import torch

        mean = math.log(1 - self.spec.start) - math.log(self.spec.start)
        return mean + 0.01 * torch.randn(units, generator=noise)

    def make_optimizer(self, numbers: Sequence[Tensor]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.Adam(numbers, lr=self.spec.lr)

    def gates(self) -> Gates:
        import torch

        noise = torch.Generator().manual_seed(derived(self.training.seed, self.updates))
        gates = {}
        for name, log_alpha in self.numbers.items():
            uniform = torch.rand(log_alpha.shape, generator=noise, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
            gates[name] = sample(log_alpha, uniform.to(log_alpha))
        return gates

    def stays(self) -> Gates:
        return {name: probability_open(log_alpha) for name, log_alpha in self.numbers.items()}

    def ranks(self) -> Gates:
        return {name: probability_open(log_alpha.detach().double()) for name, log_alpha in self.numbers.items()}

    def final_gates(self) -> Gates:
        return {name: settled(log_alpha.detach()) for name, log_alpha in self.numbers.items()}

    def learn(self) -> None:
        import torch

        with torch.enable_grad():
            excess = self.excess()
            (self.strength * excess + PENALTY / 2 * excess.square()).backward()
        if self.has_finite_gradients():
            self.optimizer.step()
            self.strength += float(excess.detach())


TRAINING_METHODS.add(MethodKind("l0", "hard concrete gates held to a budget (Louizos et al. 2018)", L0Spec, L0))
