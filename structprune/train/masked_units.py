"""As many units of each group as a plan keeps are active in a training; which ones may change on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..criteria import score
from ..errors import RecipeError
from ..records import Scores
from .gated_units import GatedUnits, Gates
from .method import Training
from .planned_units import PlannedSpec, PlannedUnits

if TYPE_CHECKING:
    from ..plan.allocations import Allocate


class MaskedUnits:
    """Masks over the units that can have gates (see `gated_units`).

    Attributes:
        units: the groups, and what they have of which parameter.
        active: the active units of each group, by its name: booleans of shape (units,).
        widths: how many units of each group are active once the training is over: as many as a plan at its start keeps.
        strata: the units of each of a group's strata, of which a cut removes alike many, such as the blocks of a
            grouped convolution; most groups have one.
    """

    def __init__(self, training: Training, spec: PlannedSpec, allocation: Allocate | None = None) -> None:
        """`allocation` stands in for that of `spec`."""
        self.plan, self.spec, self.allocation = PlannedUnits(training, spec), spec, allocation
        graph = self.plan.graph
        self.units = GatedUnits(training.model, graph, [group.name for group in graph.groups])
        if not self.units.groups:
            raise RecipeError(
                f"method {spec.method} needs channels that can go and that layers take in by weights; there are none"
            )
        device = self.units.parameters[0].device
        strata = {group.name: torch.as_tensor(group.strata.copy(), device=device) for group in graph.groups}
        self.strata = {
            group.name: [(strata[group.name] == each).nonzero()[:, 0] for each in strata[group.name].unique()]
            for group in self.units.groups
        }
        self.choose()

    def choose(self) -> None:
        """Has those units active that a plan by the present weights keeps. Raises RecipeError and BudgetError."""
        graph, criterion = self.plan.graph, self.spec.criterion
        names, scores = {group.name for group in self.units.groups}, score(graph, criterion)
        values = {name: value for name, value in scores.values.items() if name in names}
        others = {group.name: "has no gates" for group in graph.groups if group.name not in values}
        removed = self.plan.removed(Scores(criterion, values, others), self.allocation or self.spec.allocation)
        self.active = self.all_active()
        for name, units in removed.items():
            self.active[name][units] = False
        self.widths = {name: int(active.sum()) for name, active in self.active.items()}
        self._stratum_widths = {
            name: [int(active[units].sum()) for units in self.strata[name]] for name, active in self.active.items()
        }

    def cut_without_masks(self) -> list[str]:
        """The groups without gates of which a plan by the present weights and the spec's allocation removes units."""
        masked = {group.name for group in self.units.groups}
        if all(group.name in masked for group in self.plan.groups):
            return []
        return [name for name in self.plan.removed() if name not in masked]

    def parts(self, name: str) -> Iterator[tuple[Tensor, int]]:
        """Yields the units of each stratum of a group, and how many of them are active once the training is over."""
        yield from zip(self.strata[name], self._stratum_widths[name], strict=True)

    def all_active(self) -> dict[str, Tensor]:
        """Masks in which no unit is inactive."""
        device = self.units.parameters[0].device
        return {group.name: torch.ones(group.units, dtype=torch.bool, device=device) for group in self.units.groups}

    def gates(self) -> dict[str, Tensor]:
        """1 for each active unit, and 0 for the others."""
        return {name: active.float() for name, active in self.active.items()}

    def sizes(self, values: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """The norm of what layers have of each unit, by its group.

        `values` are those of each parameter, by its `id`: weights or gradients.
        """
        sizes = {}
        for group in self.units.groups:
            parts = [part for part in group.parts if part.role == "consumer" and id(part.parameter) in values]
            squares = [part.sums(values[id(part.parameter)].detach().square()) for part in parts]
            sizes[group.name] = (
                torch.stack(squares).sum(0).sqrt()
                if squares
                else torch.zeros(group.units, device=self.units.parameters[0].device)
            )
        return sizes

    def weights(self) -> dict[int, Tensor]:
        """The weights of the parameters that take units in, by `id`."""
        return {id(parameter): parameter.detach() for parameter in self.units.parameters}

    def state(self) -> Any:
        return [self.widths, self._stratum_widths, self.active, self.units.own, self.plan.state()]

    def restore(self, state: Any) -> None:
        self.widths, self._stratum_widths, self.active, own, plan = state
        self.plan.restore(plan)
        self.active = {name: active.to(self.units.parameters[0].device) for name, active in self.active.items()}
        self.units.restore(own)


def hold_at_zero(
    units: GatedUnits, gates: Gates, optimizer: torch.optim.Optimizer, roles: Iterable[str] = ("consumer",)
) -> None:
    """Sets the weights of units with a gate of zero, and what the optimiser keeps of them, to zero.

    Args:
        units: the groups.
        gates: 1 for the units whose weights stay as they are, and 0 for the others.
        optimizer: the training's.
        roles: which weights: the kernels that take channels in (`consumer`), the filters that make them (`filter`).
    """
    with torch.no_grad():
        for role in roles:
            for parameter, factor in units.factors(gates, role):
                parameter.mul_(factor)
                for value in optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.mul_(factor)
