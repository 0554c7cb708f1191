"""The units that a plan would remove from a network in training, for methods that prepare them to go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from ..strict_specs import Number, Whole, only_read
from .method import MethodSpec, Training

if TYPE_CHECKING:
    from torch import Tensor

    from .coupled import CoupledUnits


class PlannedSpec(MethodSpec):
    """What a plan is made by while training; the run's own `prune` needs the same keys to remove the same units."""

    criterion: str = Field(default="l2", description="how units are ranked: a criterion that needs weights alone")
    budget: dict[Literal["macs", "params", "channels"], Annotated[Number, Field(gt=0)]] = Field(
        min_length=1, description="what may stay, as in `prune.budget`: macs, params or channels"
    )
    allocation: str = Field(default="uniform", description="how the budget is shared among groups")
    min_channels: Whole = Field(default=1, ge=1, description="how many channels each layer keeps at least")
    max_ratio: Number = Field(default=0.9, gt=0, le=1, description="the largest share of a group's units that may go")
    align: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="what widths are multiples of, as in `prune.align`"
    )
    ignore: tuple[str, ...] = Field(default=(), description="module paths, with `*` and `?`, whose channels stay")

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
    def _known_allocation(cls, name: str, info: ValidationInfo) -> str:
        from ..recipe import known_names

        return known_names.ALLOCATIONS.check(name, info)


class PlannedUnits:
    """The groups of a network in training, and which of their units a plan by its present weights removes."""

    def __init__(self, training: Training, spec: PlannedSpec) -> None:
        from .coupled import coupled_units, trace_trained

        self.spec = spec
        self.graph = trace_trained(training.model, training.example)
        self.groups = coupled_units(training.model, self.graph)

    def removed(self) -> dict[str, list[int]]:
        """The units that go, by the names of their groups. Raises RecipeError and BudgetError."""
        from ..criteria import score
        from ..plan import plan

        spec = self.spec
        cut = plan(
            self.graph,
            score(self.graph, spec.criterion),
            dict(spec.budget),  # type: ignore[arg-type]
            allocation=spec.allocation,
            min_channels=spec.min_channels,
            max_ratio=spec.max_ratio,
            align=spec.align,
            ignore=spec.ignore,
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


def _mask(group: CoupledUnits, removed: list[int]) -> Tensor:
    """1 for each unit that stays and 0 for each that goes: (units,)."""
    import torch

    kept = torch.ones(group.units)
    kept[removed] = 0
    return kept
