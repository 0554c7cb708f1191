"""Gates with differentiable polarisation (Guo et al., ICCV 2021), on coupled units: x²/(x² + ε), with ε to zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...strict_specs import Number
from ..learned_gates import PENALTY, GateSpec, LearnedGates, smallest_count
from ..method import TRAINING_METHODS, MethodKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..gated_units import Gates


class GdpSpec(GateSpec):
    """Each unit gets a gate that ends at exactly 0 or near 1; what the gates leave is held to the budget."""

    method: Literal["gdp"] = Field(default="gdp", description="the method's name")
    lr: Number = Field(default=0.01, gt=0, description="learning rate of a gate whose unit has the mean price")
    epsilon: Number = Field(default=0.1, gt=0, description="ε at first: how soft the gates are")
    last_epsilon: Number = Field(default=1e-4, gt=0, description="ε at the end, to which it falls by a constant factor")


def polarised(x: Tensor, epsilon: float) -> Tensor:
    """Gates g = x²/(x² + ε): 0 at 0, and near 1 wherever x² is large beside ε."""
    square = x.square()
    return square / (square + epsilon)


def shrunk(x: Tensor, by: Tensor) -> Tensor:
    """The proximal step of Σ by·|x|: nearer to zero by so much, and exactly zero where that is less."""
    return x.sign() * (x.abs() - by).clamp_min(0)


class Gdp(LearnedGates):
    """Gates g = x²/(x² + ε); their x are learned by proximal gradient steps, while ε falls.

    x ← S(x - η·∂loss/∂x, η·(λ + ρ·e)·∂cost/∂g), S being the soft threshold, by which an x is exactly zero once the loss
    holds up to its unit's price no more. e and λ are as `learned_gates` has them, neither λ nor λ + ρ·e below zero
    here, and η is `lr` times the number of units, as prices and gradients of a unit fall with it. As ε falls the gates
    that are not zero go to 1. At zero the gradient of a gate is zero, and it stays there: a unit that is gone is gone.
    So no step takes more units than the cost has to fall by, counted by the gates that are not zero, and of each group
    as many as the cut has to leave are not shrunk.

    Usual errors: a plain gradient step on the gates, by which none is exactly zero as their gradient vanishes there; ε
    constant, or small from the start, where gates have hardly a gradient; a step that takes a whole group, all of whose
    gates are alike at first, and leaves less than the budget for good; gates on filters in front of a
    BatchNorm, which undoes them; a price on x in place of what the unit costs; a group with no unit left, which nothing
    brings back; an average of weights (refused).
    """

    spec: GdpSpec

    def initial(self, units: int, noise: torch.Generator) -> Tensor:
        import torch

        return torch.ones(units)

    def make_optimizer(self, numbers: Sequence[Tensor]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.SGD(numbers, lr=self.spec.lr * sum(map(len, numbers)))

    @property
    def epsilon(self) -> float:
        """ε in this update."""
        first, last = float(self.spec.epsilon), float(self.spec.last_epsilon)
        return first * (last / first) ** min(1.0, self.progress)

    def gates(self) -> Gates:
        return {name: polarised(x, self.epsilon) for name, x in self.numbers.items()}

    def stays(self) -> Gates:
        return self.gates()

    def ranks(self) -> Gates:
        return {name: x.detach().abs() for name, x in self.numbers.items()}

    def final_gates(self) -> Gates:
        return {name: gate.detach() for name, gate in self.gates().items()}

    def learn(self) -> None:
        import torch

        if not self.has_finite_gradients():
            return
        with torch.enable_grad():
            gates = {name: gate.detach().requires_grad_() for name, gate in self.gates().items()}
            excess = self.excess(gates)
            prices = torch.autograd.grad(excess, [*gates.values()], allow_unused=True)
        pull = max(0.0, self.strength + PENALTY * float(excess.detach())) * self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        with torch.no_grad():
            before = {name: x.clone() for name, x in self.numbers.items()}
            for (name, x), price in zip(self.numbers.items(), prices, strict=True):
                if price is not None:
                    smaller = x.abs().argsort(stable=True)[: len(x) - self.least[name]]
                    x[smaller] = shrunk(x[smaller], pull * price[smaller])
            self._restore_what_the_budget_leaves(before)
        self.strength = max(0.0, self.strength + float(excess.detach()))

    def _restore_what_the_budget_leaves(self, before: Gates) -> None:
        """Puts the largest of the gates back that a step has set to zero, where it is further than the cost has to fall
        by now: they would not come back of themselves."""
        import torch

        values, previous = torch.cat([*self.numbers.values()]), torch.cat([*before.values()])
        sizes = [len(x) for x in before.values()]
        zeros = ((values == 0) & (previous != 0)).nonzero()[:, 0]
        order = zeros[previous[zeros].abs().argsort(descending=True, stable=True)]

        def costs_enough(count: int) -> bool:
            support = (values != 0).to(values.dtype)
            support[order[:count]] = 1
            return bool(self.excess(dict(zip(before, support.split(sizes), strict=True))) >= 0)

        units = order[: smallest_count(len(order), costs_enough)]
        values[units] = previous[units]
        for x, value in zip(self.numbers.values(), values.split(sizes), strict=True):
            x.copy_(value)


TRAINING_METHODS.add(
    MethodKind("gdp", "gates that end at 0 or near 1, held to a budget (Guo et al. 2021)", GdpSpec, Gdp)
)
