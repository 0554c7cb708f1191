"""Pruning interleaved with updates (Molchanov et al., ICLR 2017 and CVPR 2019): a few units every few updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ...errors import RecipeError
from ...strict_specs import Number, Whole
from ..method import TRAINING_METHODS, MethodKind, Training, TrainingMethod
from ..planned_units import CutSpec, PlannedUnits

if TYPE_CHECKING:
    from torch import nn

    from ...plan.allocations import Load
    from ...plan.budget import Choice, Widths
    from ...records import Scores
    from ..removal_steps import RemovalSteps


class InterleavedSpec(CutSpec):
    """Every few updates the units go whose removal changes the loss least, by its gradients of these updates."""

    exact_weights: ClassVar[bool] = True
    cut_by: ClassVar[Mapping[str, tuple[str, ...]]] = {"criterion": ("l1", "l2"), "allocation": ("threshold",)}

    method: Literal["interleaved"] = Field(default="interleaved", description="the method's name")
    interval: Whole = Field(default=10, ge=1, description="m: updates of the weights between removals")
    units: Whole | None = Field(
        default=None,
        ge=1,
        description="n: units that go at a time, of all groups; by default as many as let the cost fall evenly",
    )
    end: Number = Field(
        default=0.5, gt=0, le=1, description="the share of training after which the budget is met and nothing goes"
    )


class Interleaved(TrainingMethod):
    """Of all units the n go whose I = mean of (Σ g·θ)² is least, the mean being over the m updates since the last.

    θ is what layers have of a unit, the kernels that take its channels in, and g the gradient of the loss in an update.
    Their sum of products is the gradient by a gate of 1 on the unit, wherever layers are coupled;
    its square estimates the square of what its removal does to the loss (equation 8). Units that went stay at zero,
    kernels and filters. Where widths are multiples, or blocks stay equally long, units go by whole steps of their
    group, those with the least I a unit first, and the last removal leaves out what the budget can do without. Once the
    budget is met, which it is after `end`, nothing goes any more.

    Usual errors: the sum over filters in front of a BatchNorm, which is zero in training whatever the filter is worth,
    as their scale does not matter; the square before the sum; the gradients of one batch alone; a sum over coupled
    layers of squares, where a unit goes from all of them at once; criteria kept over removals, which have changed them;
    units that come back by momentum.
    """

    def __init__(self, spec: InterleavedSpec) -> None:
        self.spec = spec
        self.updates = self.count = self.rest = 0
        self.settled = False

    def start(self, training: Training) -> None:
        import torch

        from ..gated_units import GatedUnits

        self.plan, self.optimizer = PlannedUnits(training, self.spec), training.optimizer
        graph, total = self.plan.graph, training.epochs * training.updates
        self.units = GatedUnits(training.model, graph, [group.name for group in graph.groups])
        if not self.units.groups:
            raise RecipeError(
                "method interleaved needs channels that can go and that layers take in by weights; there are none"
            )
        self.times = int(self.spec.end * total) // self.spec.interval
        if not self.times:
            raise RecipeError(
                f"method interleaved removes units every {self.spec.interval} updates, and end={self.spec.end:g} of "
                f"this training's {total} comes before: set a smaller interval"
            )
        device = self.units.parameters[0].device
        self.active = {g.name: torch.ones(g.units, dtype=torch.bool, device=device) for g in self.units.groups}
        self.totals = {name: torch.zeros(len(active), device=device) for name, active in self.active.items()}
        self._widths(lambda choices, load, steps: steps.present)  # a budget that no plan meets is refused now

    def after_backward(self, model: nn.Module) -> None:
        import torch

        if self.settled:
            return
        with torch.no_grad():
            changes = {}
            for group in self.units.groups:
                products = [
                    part.sums(part.parameter * part.parameter.grad)
                    for part in group.parts
                    if part.role == "consumer" and part.parameter.grad is not None
                ]
                changes[group.name] = torch.stack(products).sum(0) if products else torch.zeros(group.units)
            if all(bool(change.isfinite().all()) for change in changes.values()):
                for name, change in changes.items():
                    self.totals[name] += change.square().to(self.totals[name])
                self.count += 1

    def after_step(self, model: nn.Module) -> None:
        from ..masked_units import hold_at_zero

        self.updates += 1
        last = self.times * self.spec.interval
        if not self.settled and self.count and (self.updates % self.spec.interval == 0 or self.updates > last):
            self._remove(self.updates >= last)
        if self.updates >= self.spec.interval:
            gates = {name: active.float() for name, active in self.active.items()}
            hold_at_zero(self.units, gates, self.optimizer, ("consumer", "filter"))

    def _remove(self, last: bool) -> None:
        """Removes what goes at this time, and what the budget asks for if it is the last."""
        spec, share = self.spec, min(1.0, self.updates / (self.times * self.spec.interval))

        def choose(choices: list[Choice], load: Load, steps: RemovalSteps) -> Widths:
            by_budget = steps.first(lambda widths: load(widths) <= 1)
            if spec.units is not None:
                now = steps.first(lambda widths: steps.gone(widths) >= int(spec.units or 0))
            else:
                dense = load({choice.group.name: int(choice.widths[-1]) for choice in choices})
                now = steps.first(lambda widths: load(widths) <= dense + (1 - dense) * share)
            self.settled = last or now >= by_budget
            met = steps.to_budget(load)
            if last and spec.units is not None and now < by_budget:
                self.rest = max(0, steps.gone(met) - steps.gone(steps.after(now)))
            return met if self.settled else steps.after(now)

        groups, scores = {group.name: group for group in self.plan.graph.groups}, self._scores()
        for name, width in self._widths(choose).items():
            if name in self.active:
                chosen = groups[name].chosen(scores.values[name], width, self.spec.min_channels or 1)
                staying = self.active[name].new_zeros(len(self.active[name]))
                staying[chosen.tolist()] = True
                self.active[name] &= staying
        self.count = 0
        for total in self.totals.values():
            total.zero_()

    def _scores(self) -> Scores:
        """The mean importance of active units, and less than any for the others."""
        import torch

        from ...records import Scores

        values = {
            name: torch.where(self.active[name], total / max(self.count, 1), -1.0).double().cpu().numpy()
            for name, total in self.totals.items()
        }
        others = {group.name: "has no gates" for group in self.plan.graph.groups if group.name not in values}
        return Scores("interleaved", values, others)

    def _widths(self, choose: Callable[[list[Choice], Load, RemovalSteps], Widths]) -> Widths:
        """The widths that `choose` gives all groups. Raises BudgetError where none meet the budget."""
        widths: Widths = {}
        scores = self._scores()
        present = {name: int(active.sum()) for name, active in self.active.items()}

        def allocate(choices: list[Choice], scores: Scores, load: Load) -> Widths:
            from ..removal_steps import RemovalSteps

            steps = RemovalSteps(choices, scores.values, present, self.spec.min_channels or 1)
            widths.update(choose(choices, load, steps))
            met = steps.to_budget(load)  # by which the plan is judged
            return {c.group.name: max(met[c.group.name], int(c.widths[0])) for c in choices}

        self.plan.removed(scores, allocate)
        return widths

    def finish(self, model: nn.Module) -> None:
        if self.rest:
            self.note = (
                f"interleaved: {self.spec.units} units every {self.spec.interval} updates did not meet the budget by "
                f"end={self.spec.end:g} of training, and the {self.rest} units that were too many went at once: raise "
                "units, or leave it out"
            )

    def state(self) -> Any:
        return [self.updates, self.count, self.rest, self.settled, self.totals, self.active, self.plan.state()]

    def restore(self, state: Any) -> None:
        self.updates, self.count, self.rest, self.settled, totals, active, plan = state
        self.plan.restore(plan)
        for name in self.active:
            self.totals[name].copy_(totals[name])
            self.active[name].copy_(active[name])


TRAINING_METHODS.add(
    MethodKind(
        "interleaved", "a few units go every few updates, by the loss's gradients (Molchanov et al. 2017, 2019)",
        InterleavedSpec, Interleaved,
    )
)  # fmt: skip
