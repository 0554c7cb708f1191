"""The units that a plan would remove from a network in training, for methods that prepare them to go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from ..errors import RecipeError
from ..strict_specs import Number, Whole, only_read
from .method import MethodSpec, Training

if TYPE_CHECKING:
    from torch import Tensor

    from ..plan.allocations import Allocate
    from ..plan.budget import Cost
    from ..recipe import PruneSpec
    from ..records import Scores
    from .coupled import CoupledUnits
    from .width_costs import WidthCosts


BudgetName = Literal["macs", "params", "channels", "latency_ms", "speedup"]
_SPEED = ("latency_ms", "speedup")


class CutSpec(MethodSpec):
    """What may stay when the cut follows. What is left out is as in the recipe's `prune`."""

    plans: ClassVar[bool] = True
    cut_by: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # of which `prune` needs one, by key, to remove the same units

    budget: dict[BudgetName, Annotated[Number, Field(gt=0)]] | None = Field(
        default=None,
        min_length=1,
        description="what may stay, as in `prune.budget`, and by default as there; of speed only where that is too",
    )
    min_channels: Whole | None = Field(
        default=None, ge=1, description="how many channels each layer keeps at least; by default as in `prune`"
    )
    max_ratio: Number | None = Field(
        default=None,
        gt=0,
        le=1,
        description="the largest share of a group's units that may go; by default as in `prune`",
    )
    align: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        default=None, description="what widths are multiples of; by default as in `prune`"
    )
    ignore: tuple[str, ...] | None = Field(
        default=None,
        description="module paths, with `*` and `?`, whose channels stay; by default as in `prune`",
    )

    def before_cut(self, prune: PruneSpec) -> CutSpec:
        from ..plan import allocation_of

        values = {key: getattr(prune, key) for key in self.shared() if getattr(self, key) is None}
        if "allocation" in values and allocation_of(prune.allocation).needs:
            values["allocation"] = "uniform"  # `cautions` says so
        if self.budget is None:
            if bounds := prune.budget.bounds:
                raise ValueError(
                    f"{self.method} plans while training, by a budget of cost, and prune.budget "
                    f"has {' and '.join(bounds)}: give {self.method} a budget of its own"
                )
            values["budget"] = prune.budget.costs
        elif (names := speeds(self.budget)) and not speeds(prune.budget.costs):
            raise ValueError(
                f"{self.method} has a budget of {' and '.join(names)}, and what widths cost is measured only where "
                "prune.budget is of speed too: give prune.budget one, or this of macs, params or channels"
            )
        return self.model_copy(update=values)

    def cautions(self, prune: PruneSpec) -> Iterator[str]:
        bounds = prune.budget.model_dump(exclude_none=True)
        pairs = {
            "budget": (self.budget, bounds),
            **{key: (getattr(self, key), getattr(prune, key)) for key in self.shared()},
        }
        others = [f"{key}={own} where prune has {cut}" for key, (own, cut) in pairs.items() if own != cut]
        if others:
            yield f"{self.method} prepares other units than the cut removes: it plans by {'; '.join(others)}"
        if speeds(self.budget or {}):
            yield (
                f"{self.method} plans by what widths cost as measured before the training, and prune by the networks "
                "that it times after it: the cut may remove a few units more than were prepared, or fewer"
            )
        for key, names in self.cut_by.items():
            if (name := getattr(prune, key)) not in names:
                yield (
                    f"{self.method} sets weights of units to zero, and a cut by prune.{key}={name} may remove others: "
                    f"choose {' or '.join(names)}"
                )

    def shared(self) -> tuple[str, ...]:
        """The keys that `prune` has too, but for the budget."""
        return tuple(key for key in _SHARED if key in type(self).model_fields)


class PlannedSpec(CutSpec):
    """What a plan is made by while training. What is left out is as in the recipe's `prune`, but for the criterion."""

    criterion: str = Field(default="l2", description="how units are ranked: a criterion that needs weights alone")
    allocation: str | None = Field(
        default=None, description="how the budget is shared among groups; by default as in `prune`"
    )

    @field_validator("criterion")
    @classmethod
    def _by_weights(cls, name: str, info: ValidationInfo) -> str:
        from ..recipe import known_names

        known_names.CRITERIA.check(name, info)
        if not only_read(info):
            from ..criteria import CRITERIA

            chosen = CRITERIA[name]
            if chosen.needs_data or "widths" in chosen.needs:
                raise ValueError(f"criterion {name} needs more than weights: use one that does not, such as l2 or fpgm")
        return name

    @field_validator("allocation")
    @classmethod
    def _known_allocation(cls, name: str | None, info: ValidationInfo) -> str | None:
        from ..recipe import known_names

        return None if name is None else known_names.ALLOCATIONS.check(name, info)


_SHARED = ("allocation", "min_channels", "max_ratio", "align", "ignore")  # keys of a plan that `prune` has too


class PlannedUnits:
    """The groups of a network in training, and which of their units a plan by its present weights removes.

    What it plans by beside the weights is part of a method's state: where timings do not agree, a process that goes on
    may learn other multiples and costs.
    """

    def __init__(self, training: Training, spec: CutSpec) -> None:
        from .coupled import coupled_units, trace_trained

        if spec.budget is None:
            raise RecipeError(f"method {spec.method} plans the cut that follows, and none does: give it a budget")
        self.spec, self.budget = spec, spec.budget
        self.align: int | Mapping[str, int] | Literal["auto"] = spec.align or "auto"
        if self.align == "auto" and training.cut.multiples is not None:
            self.align = training.cut.multiples
        self.graph = trace_trained(training.model, training.example, training.cut.form)
        self.cost: WidthCosts | None = None
        if names := speeds(spec.budget):
            self.cost = self._costs(training.cut.cost, " and ".join(names))
        self.groups = coupled_units(training.model, self.graph)

    def _costs(self, cost: Cost | None, names: str) -> WidthCosts:
        from .width_costs import WidthCosts

        if cost is None:
            raise RecipeError(
                f"method {self.spec.method} has a budget of {names}, and what widths cost is not known here: give it "
                "one of macs, params or channels"
            )
        costs = WidthCosts.of(cost)
        if not costs.are_of(self.graph):
            raise RecipeError(
                f"method {self.spec.method} has a budget of {names}, and what widths cost was measured on other "
                "channels than a training sample's graph has: give it one of macs, params or channels"
            )
        return costs

    def state(self) -> Any:
        return [self.align, None if self.cost is None else self.cost.state()]

    def restore(self, state: Any) -> None:
        from .width_costs import WidthCosts

        self.align, costs = state
        self.cost = None if costs is None else WidthCosts.of_state(costs)

    def removed(self, scores: Scores | None = None, allocation: str | Allocate | None = None) -> dict[str, list[int]]:
        """The units that go, by the names of their groups: by `scores` and `allocation`, or by the spec's own.

        Raises RecipeError and BudgetError.
        """
        from ..criteria import score
        from ..plan import plan

        if scores is None:
            assert isinstance(self.spec, PlannedSpec)
            scores, allocation = score(self.graph, self.spec.criterion), self.spec.allocation
        keys = {key: getattr(self.spec, key) for key in ("min_channels", "max_ratio", "ignore")}
        cut = plan(
            self.graph,
            scores,
            dict(self.budget),  # type: ignore[arg-type]
            allocation=allocation or "uniform",
            align=self.align,
            cost=self.cost,
            **{key: value for key, value in keys.items() if value is not None},
        )
        kept = {name: set(entry["kept"]) for name, entry in cut.groups.items()}
        return {
            group.name: [unit for unit in range(group.units) if unit not in kept[group.name]]
            for group in self.groups
            if group.name in kept and len(kept[group.name]) < group.units
        }

    def filters(self, removed: dict[str, list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the weights that produce channels of these units, each with where they are theirs alone: booleans
        that spread over the weight's shape."""
        import torch

        for group in self.groups:
            if not (units := removed.get(group.name)):
                continue
            kept = _mask(group, units)
            for part in group.parts:
                if part.role == "filter":
                    staying = part.spread(kept.to(part.parameter.device))
                    present = part.spread(torch.ones_like(kept, device=part.parameter.device))
                    yield part.parameter, (present > 0) & (staying == 0)


def speeds(budget: Iterable[str]) -> list[str]:
    """The names in a budget that are of speed."""
    return [name for name in budget if name in _SPEED]


def _mask(group: CoupledUnits, removed: list[int]) -> Tensor:
    """1 for each unit that stays and 0 for each that goes: (units,)."""
    import torch

    kept = torch.ones(group.units)
    kept[removed] = 0
    return kept
