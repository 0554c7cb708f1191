"""Gates on coupled units that are learned beside the weights, while what they leave is held to a budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ..errors import RecipeError
from ..seeds import derived
from ..strict_specs import Number
from .method import Training, TrainingMethod
from .planned_units import CutSpec, PlannedUnits

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from ..calibration import Batch
    from ..plan.allocations import Load
    from ..plan.budget import Choice, Widths
    from ..records import Scores
    from .gated_units import Gates

MAX_RATIO = 0.9  # that of a plan which is given none
PENALTY = 100.0  # ρ: with e of a few hundredths, a λ of a few units, as losses of classes need


class GateSpec(CutSpec):
    """Each unit gets a gate that is learned; what the open ones cost is held to the budget."""

    exact_weights: ClassVar[bool] = True
    cut_by: ClassVar[Mapping[str, tuple[str, ...]]] = {"criterion": ("l1", "l2"), "allocation": ("threshold",)}

    ramp: Number = Field(default=0.5, ge=0, le=1, description="the share of training in which the cost falls to budget")


class LearnedGates(TrainingMethod, ABC):
    """One number a unit, from which its gate follows; the numbers are learned by an optimiser of their own.

    What the network costs by its gates is held to the budget by an augmented Lagrangian, λ·e + ρ/2·e², in which λ grows
    by e in each update. e is the cost, as a share of the dense network's, less what it is to be by now, which falls
    from 1 to the budget (as in Wang, Wohlwend & Lei, EMNLP 2020, section 3.3). The cost is a sum of products, over the
    axes of each op, of what `stays` gives, or what the runtime was measured to take at such widths (`expected_costs`).

    After each epoch the network holds its final gates, folded into its weights, and the units that `ranks` puts last
    are closed to the budget, which a plan does by one threshold on all groups: the weights that make and take in their
    channels are zero, so that they can be removed with no change at all. Training goes on from the weights without.
    Groups that a statistic is taken over (LayerNorm), or that enter no weights (queries and keys), have no gates.

    Attributes:
        numbers: of each group, by its name: (units,), the leaves that are learned.
        least: how many units of each group stay at least.
        updates: how many updates of the weights there were.
        strength: λ.
    """

    def __init__(self, spec: GateSpec) -> None:
        self.spec = spec
        self.updates = 0
        self.strength = 0.0
        self.is_gated = False

    @abstractmethod
    def initial(self, units: int, noise: torch.Generator) -> Tensor:
        """The numbers that a group starts from: (units,)."""

    @abstractmethod
    def make_optimizer(self, numbers: Sequence[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of the numbers."""

    @abstractmethod
    def gates(self) -> Gates:
        """The gates to train with in this update, through which gradients reach the numbers."""

    @abstractmethod
    def stays(self) -> Gates:
        """How much of each unit the cost counts, from 0 to 1; gradients go to the numbers."""

    @abstractmethod
    def ranks(self) -> Gates:
        """What units are ranked by, over all groups, where some have to be closed."""

    @abstractmethod
    def final_gates(self) -> Gates:
        """The gates of the finished network, without gradients."""

    @abstractmethod
    def learn(self) -> None:
        """Changes the numbers, once the gradients of the loss stand in them."""

    def start(self, training: Training) -> None:
        import torch

        from ..plan.budget import choices
        from .gated_units import GatedUnits

        self.training, self.plan = training, PlannedUnits(training, self.spec)
        graph, spec = self.plan.graph, self.spec
        everything = {group.name: torch.ones(group.units).numpy() for group in graph.groups}
        max_ratio = MAX_RATIO if spec.max_ratio is None else spec.max_ratio
        movable = choices(graph.groups, everything, spec.min_channels or 1, max_ratio, 1, spec.ignore or ())
        self.least = {choice.group.name: int(choice.widths[0]) for choice in movable if len(choice.widths) > 1}
        self.units = GatedUnits(training.model, graph, [*self.least])
        if not self.units.groups:
            raise RecipeError(
                f"method {spec.method} needs channels that can go and that layers take in by weights; there are none"
            )
        self.device = self.units.parameters[0].device
        self._read_costs()
        noise = torch.Generator().manual_seed(derived(training.seed))
        self.numbers = {
            group.name: self.initial(group.units, noise).to(self.device).requires_grad_() for group in self.units.groups
        }
        self.optimizer = self.make_optimizer([*self.numbers.values()])
        self.closed()  # a budget that no plan meets is refused now

    def _read_costs(self) -> None:
        """The costs of the network, and which share of each may stay."""
        from ..plan.budget import read_budget
        from .expected_costs import ExpectedCosts

        graph, cost = self.plan.graph, self.plan.cost
        self.costs = ExpectedCosts(graph, self.device, cost)
        limits = read_budget(self.plan.budget, graph, cost)  # type: ignore[arg-type]
        self.targets = {limit.name: limit.allowed / limit.dense for limit in limits}

    def mix(self, batch: Batch) -> Batch:
        if not self.is_gated:
            self.units.take_out()
            self.units.put_in(self.gates())
            self.is_gated = True
        return batch

    @property
    def progress(self) -> float:
        """The share of the training that is done."""
        return self.updates / (self.training.epochs * self.training.updates)

    def excess(self, stays: Gates | None = None) -> Tensor:
        """By how much the cost, as a share of the dense network's, is above what it is to be by now.

        `stays` is as of the method of this name, where it is not the present one.
        """
        import torch

        stays = self.stays() if stays is None else stays
        progress = min(1.0, self.progress / self.spec.ramp) if self.spec.ramp else 1.0
        return torch.stack(
            [self.costs.share(name, stays) - (1 - (1 - target) * progress) for name, target in self.targets.items()]
        ).max()

    def after_backward(self, model: nn.Module) -> None:
        self.optimizer.zero_grad()
        self.units.backward()
        self.learn()
        self.updates += 1
        self.is_gated = False

    def has_finite_gradients(self) -> bool:
        """Whether no gradient of a number has overflowed; one that has none counts as finite."""
        return all(each.grad is None or bool(each.grad.isfinite().all()) for each in self.numbers.values())

    def closed(self) -> dict[str, list[int]]:
        """The units that a plan by `ranks` removes, and those with a gate of zero that can go with them, by group."""
        from ..records import Scores

        values = {name: each.detach().double().cpu().numpy() for name, each in self.ranks().items()}
        others = {group.name: "has no gates" for group in self.plan.graph.groups if group.name not in values}
        zeros = {name: (gate == 0).cpu().numpy() for name, gate in self.final_gates().items()}

        def allocate(choices: list[Choice], scores: Scores, load: Load) -> Widths:
            widths = _by_threshold(choices, scores, load)
            for choice in choices:
                if (name := choice.group.name) in zeros:
                    ranked = choice.group.ranked(scores.values[name], self.spec.min_channels or 1)
                    widths[name] = _without_zeros(choice, widths[name], ranked, zeros[name])
            return widths

        return self.plan.removed(Scores(self.spec.method, values, others), allocate)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        import torch

        gates = {name: gate.clone() for name, gate in self.final_gates().items()}
        staying = {name: torch.ones_like(gate) for name, gate in gates.items()}
        for name, units in self.closed().items():
            for values in (gates, staying):
                values[name][units] = 0
        # zero gates that widths leave in keep their filters: the cut, by the sizes of these, would round by them
        self.units.fold(gates, staying)
        self.training.reestimate_statistics()

    def state(self) -> Any:
        return {
            "updates": self.updates,
            "plan": self.plan.state(),
            "own": self.units.own,
            "gates": {name: each.detach() for name, each in self.numbers.items()},
            "strength": self.strength,
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: Any) -> None:
        import torch

        self.updates = state["updates"]
        self.plan.restore(state["plan"])
        self._read_costs()
        self.units.restore(state["own"])
        with torch.no_grad():
            for name, each in self.numbers.items():
                each.copy_(state["gates"][name])
        self.strength = state["strength"]
        self.optimizer.load_state_dict(state["optimizer"])


def smallest_count(most: int, holds: Callable[[int], bool]) -> int:
    """The smallest number up to `most` for which `holds`, which it does from there on; `most` where it never does."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _without_zeros(choice: Choice, width: int, ranked: np.ndarray, zeros: np.ndarray) -> int:
    """The narrowest width of a group by which no unit goes that is not zero, beside those that go at `width`."""
    import numpy as np

    kept = choice.group.best(ranked, width)
    while (narrower := choice.next_below(width)) is not None:
        if not zeros[np.setdiff1d(kept, choice.group.best(ranked, narrower))].all():
            break
        width = narrower
    return width


def _by_threshold(choices: list[Choice], scores: Scores, load: Load) -> Widths:
    """The widths of one threshold on the scores of all groups, which multiples of widths leave room beside."""
    import numpy as np

    from ..plan.thresholds import threshold
    from ..plan.uniform import fill

    widths = threshold(choices, scores, load)

    def next_best(choice: Choice) -> float:
        name = choice.group.name
        if name not in scores.values:
            return -np.inf
        closed = np.sort(scores.values[name])[: choice.group.units - widths[name]]
        return float(closed.max(initial=-np.inf))

    order = sorted(choices, key=next_best, reverse=True)
    return fill(choices, widths, load, [choice.group.name for choice in order])
