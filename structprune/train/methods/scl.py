"""Sparse connectivity learning (Tang et al., IEEE TNNLS 2022) by units: masks trained straight through their steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..learned_gates import GateSpec, LearnedGates, smallest_count
from ..method import TRAINING_METHODS, MethodKind, Training

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..gated_units import Gates


class SclSpec(GateSpec):
    """Each unit is in the network or out of it by a mask that is learned, as many as the budget leaves by then."""

    method: Literal["scl"] = Field(default="scl", description="the method's name")


def normalised(gradient: Tensor) -> Tensor:
    """A group's gradients with a mean square of 1; zero where all are."""
    size = gradient.square().mean().sqrt()
    return gradient / size if size > 0 else gradient


class Scl(LearnedGates):
    """Gate = 1 where the unit's mask m is above τ, else 0; ∂gate/∂m is taken for 1 (identity straight-through).

    m ← m - η·g/√mean(g²), g being the gradients of the loss by the gates of one group: once they are normalised no
    group's are larger than another's. η is the weights' own learning rate, with its schedule, so that masks settle as
    weights do. The paper's regulariser, λ times the connections that are left, pulls all masks down alike, by which
    those below a threshold go. Here τ is that threshold, found anew in each update: the lowest at which the network
    costs no more than it may by now, which falls to the budget. As gates are 0 or 1, that is the network's own cost.
    Units that are out get gradients too, by the weights that they left with, and may come back. Of each group as many
    units stay as the cut has to leave. What an epoch ends with are the units with the largest masks.

    Usual errors: a sigmoid's or a clipped estimator, which stops units far from the step for good; Adam for the masks,
    which undoes the normalisation of each group by one of each mask; gradients normalised over all groups, of which the
    largest then decides alone; gradients of the masks stopped where the gate is 0; m itself as the gate in training;
    a group with no unit left; a price by cost for each unit, beside gradients whose sizes no longer compare over
    groups: the dearest group then goes first, as a whole; an average of weights (refused).
    """

    spec: SclSpec

    def start(self, training: Training) -> None:
        super().start(training)
        self.choose()

    def initial(self, units: int, noise: torch.Generator) -> Tensor:
        import torch

        return torch.zeros(units)

    def make_optimizer(self, numbers: Sequence[Tensor]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.SGD(numbers, lr=1.0)

    def choose(self) -> None:
        """Finds which units are in the network, by their masks and what it may cost by now."""
        import torch

        sizes = [len(mask) for mask in self.numbers.values()]
        values = torch.cat([mask.detach() for mask in self.numbers.values()])
        secure = torch.cat([_largest(mask.detach(), self.least[name]) for name, mask in self.numbers.items()])
        order = torch.where(secure, torch.inf, values).argsort(stable=True)

        def without(count: int) -> dict[str, Tensor]:
            inside = torch.ones_like(values)
            inside[order[:count]] = 0
            return dict(zip(self.numbers, inside.split(sizes), strict=True))

        with torch.no_grad():
            count = smallest_count(int((~secure).sum()), lambda count: bool(self.excess(without(count)) <= 0))
        self.inside = without(count)

    def gates(self) -> Gates:
        from torch.autograd import Function

        class Step(Function):
            """The step from 0 to 1 at the threshold, whose gradient is taken for 1."""

            @staticmethod
            def forward(ctx: Any, mask: Tensor, inside: Tensor) -> Tensor:
                return inside.clone()

            @staticmethod
            def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
                return gradient, None

        return {name: Step.apply(mask, self.inside[name]) for name, mask in self.numbers.items()}

    def stays(self) -> Gates:
        return self.inside

    def ranks(self) -> Gates:
        return self.numbers

    def final_gates(self) -> Gates:
        import torch

        return {name: torch.ones_like(mask.detach()) for name, mask in self.numbers.items()}  # `closed` says which go

    def learn(self) -> None:
        if self.has_finite_gradients():
            for mask in self.numbers.values():
                mask.grad = None if mask.grad is None else normalised(mask.grad)
            self.optimizer.param_groups[0]["lr"] = self.training.optimizer.param_groups[0]["lr"]
            self.optimizer.step()
        self.choose()

    def state(self) -> Any:
        return {**super().state(), "inside": self.inside}

    def restore(self, state: Any) -> None:
        super().restore(state)
        self.inside = {name: inside.to(self.device) for name, inside in state["inside"].items()}


def _largest(values: Tensor, count: int) -> Tensor:
    """Which are the `count` largest."""
    import torch

    among = torch.zeros_like(values, dtype=torch.bool)
    among[values.argsort(descending=True, stable=True)[:count]] = True
    return among


TRAINING_METHODS.add(
    MethodKind("scl", "masks trained straight through, held to a budget (Tang et al. 2022)", SclSpec, Scl)
)
