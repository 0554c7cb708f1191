"""L0 regularisation by hard concrete gates (Louizos, Welling & Kingma, ICLR 2018), on coupled units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ...errors import RecipeError
from ...seeds import derived
from ...strict_specs import Number
from ..method import TRAINING_METHODS, MethodKind, Training, TrainingMethod
from ..planned_units import CutSpec, PlannedUnits

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...calibration import Batch
    from ...plan.allocations import Load
    from ...plan.budget import Choice, Widths
    from ...records import Scores

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1  # section 4: the temperature, and what the concrete distribution is stretched to
PENALTY = 100.0  # ρ: with e of a few hundredths, a λ of a few units, as losses of classes need


class L0Spec(CutSpec):
    """Each unit gets a gate that is learned; what the open ones cost in the mean is held to the budget."""

    exact_weights: ClassVar[bool] = True
    cut_by: ClassVar[Mapping[str, tuple[str, ...]]] = {"criterion": ("l1", "l2"), "allocation": ("threshold",)}

    method: Literal["l0"] = Field(default="l0", description="the method's name")
    lr: Number = Field(default=0.1, gt=0, description="learning rate of the gates, by Adam")
    start: Number = Field(default=0.1, gt=0, lt=1, description="the share of gates that is closed at first")
    ramp: Number = Field(default=0.5, ge=0, le=1, description="the share of training in which the cost falls to budget")


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


class L0(TrainingMethod):
    """Gates z = min(1, max(0, s·(ζ - γ) + γ)), s being concrete, one draw an update; their log α are learned.

    The paper adds λ·Σ P(z ≠ 0) to the loss. Here each unit weighs what it costs, and λ is found: by an augmented
    Lagrangian, λ·e + ρ/2·e², in which λ grows by e in each update. e is the cost in the mean, as a share of the dense
    network's, less what it is to be by now, which falls from 1 to the budget (as in Wang, Wohlwend & Lei, EMNLP 2020,
    section 3.3). The mean cost is a sum of products of P(z ≠ 0) over the axes of each op.

    After each epoch the network holds the gates that are not drawn, folded into its weights, and the units of which a
    plan finds least probable that they are open are closed to the budget: the weights that make and take in their
    channels are zero, so that they can be removed with no change at all. Training goes on from the weights without.
    Groups that a statistic is taken over (LayerNorm), or that enter no weights (queries and keys), have no gates.

    Usual errors: gates on filters in front of a BatchNorm, which undoes them; a penalty on log α or on the gates in
    place of P(z ≠ 0); gates drawn at test time, or not stretched beyond [0, 1], so that none is exactly zero; one draw
    for each use of a unit where layers are coupled; a learning rate of the weights for the gates, which then hardly
    move in a short training; an average of weights (refused).
    """

    def __init__(self, spec: L0Spec) -> None:
        self.spec = spec
        self.updates = 0
        self.strength = 0.0  # λ
        self.is_drawn = False

    def start(self, training: Training) -> None:
        import torch

        from ...plan.budget import choices, read_budget
        from ..expected_costs import ExpectedCosts
        from ..gated_units import GatedUnits

        self.training, self.plan = training, PlannedUnits(training, self.spec)
        graph, spec = self.plan.graph, self.spec
        everything = {group.name: torch.ones(group.units).numpy() for group in graph.groups}
        movable = choices(graph.groups, everything, 1, spec.max_ratio or 1.0, 1, spec.ignore or ())
        names = [choice.group.name for choice in movable if len(choice.widths) > 1]
        self.units = GatedUnits(training.model, graph, names)
        if not self.units.groups:
            raise RecipeError("method l0 needs channels that can go and that layers take in by weights; there are none")
        self.device = self.units.parameters[0].device
        self.costs = ExpectedCosts(graph, self.device)
        self.targets = {limit.name: limit.allowed / limit.dense for limit in read_budget(self.plan.budget, graph)}  # type: ignore[arg-type]
        mean = math.log(1 - spec.start) - math.log(spec.start)
        noise = torch.Generator().manual_seed(derived(training.seed))
        self.log_alpha = {
            group.name: (mean + 0.01 * torch.randn(group.units, generator=noise)).to(self.device).requires_grad_()
            for group in self.units.groups
        }
        self.optimizer = torch.optim.Adam(list(self.log_alpha.values()), lr=spec.lr)
        self.closed()  # a budget that no plan meets is refused now

    def mix(self, batch: Batch) -> Batch:
        import torch

        if not self.is_drawn:
            self.units.take_out()
            noise = torch.Generator().manual_seed(derived(self.training.seed, self.updates))
            gates = {}
            for name, log_alpha in self.log_alpha.items():
                uniform = torch.rand(log_alpha.shape, generator=noise, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
                gates[name] = sample(log_alpha, uniform.to(log_alpha))
            self.units.put_in(gates)
            self.is_drawn = True
        return batch

    def excess(self) -> Tensor:
        """By how much the cost in the mean, as a share of the dense network's, is above what it is to be by now."""
        import torch

        probabilities = {name: probability_open(log_alpha) for name, log_alpha in self.log_alpha.items()}
        ramp = self.spec.ramp * self.training.epochs * self.training.updates
        progress = min(1.0, self.updates / ramp) if ramp else 1.0
        return torch.stack(
            [
                self.costs.share(name, probabilities) - (1 - (1 - target) * progress)
                for name, target in self.targets.items()
            ]
        ).max()

    def after_backward(self, model: nn.Module) -> None:
        import torch

        self.optimizer.zero_grad()
        self.units.backward()
        with torch.enable_grad():
            excess = self.excess()
            (self.strength * excess + PENALTY / 2 * excess.square()).backward()
        if all(log_alpha.grad is None or log_alpha.grad.isfinite().all() for log_alpha in self.log_alpha.values()):
            self.optimizer.step()
            self.strength += float(excess.detach())
        self.updates += 1
        self.is_drawn = False

    def closed(self) -> dict[str, list[int]]:
        """The units that a plan by the gates removes, by group."""
        from ...records import Scores

        values = {
            name: probability_open(log_alpha.detach().double()).cpu().numpy()
            for name, log_alpha in self.log_alpha.items()
        }
        others = {group.name: "has no gates" for group in self.plan.graph.groups if group.name not in values}
        return self.plan.removed(Scores("l0", values, others), _most_probable)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        gates = {name: settled(log_alpha.detach()) for name, log_alpha in self.log_alpha.items()}
        for name, units in self.closed().items():
            gates[name][units] = 0
        self.units.fold(gates)
        self.training.reestimate_statistics()

    def state(self) -> Any:
        return {
            "updates": self.updates,
            "align": self.plan.align,
            "own": self.units.own,
            "gates": {name: log_alpha.detach() for name, log_alpha in self.log_alpha.items()},
            "strength": self.strength,
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: Any) -> None:
        import torch

        self.updates, self.plan.align = state["updates"], state["align"]
        self.units.restore(state["own"])
        with torch.no_grad():
            for name, log_alpha in self.log_alpha.items():
                log_alpha.copy_(state["gates"][name])
        self.strength = state["strength"]
        self.optimizer.load_state_dict(state["optimizer"])


def _most_probable(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """The widths of one threshold on the probabilities of all groups, which multiples of widths leave room beside."""
    import numpy as np

    from ...plan.thresholds import threshold
    from ...plan.uniform import fill

    widths = threshold(choices, scores, load)

    def next_best(choice: Choice) -> float:
        values = scores.values.get(choice.group.name)
        return 0.0 if values is None else float(np.sort(values)[::-1][widths[choice.group.name] :].max(initial=0.0))

    order = sorted(choices, key=next_best, reverse=True)
    return fill(choices, widths, load, [choice.group.name for choice in order])


TRAINING_METHODS.add(MethodKind("l0", "hard concrete gates held to a budget (Louizos et al. 2018)", L0Spec, L0))
