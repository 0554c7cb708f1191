"""How the network is cut, in a recipe: what may stay, by which criterion, within which constraints."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..schedules.rounds import ScheduleSpec
from ..strict_specs import Number, Strict, Whole
from ..typing import Budget
from ..user_code_calls import checked_name
from . import known_names

QUALITY = ("quality_drop", "agreement")  # the bounds of quality
AUTO = "auto"  # the allocation that a recipe names which names none


class BudgetSpec(Strict):
    """What may stay, and how good the network must be.

    Of cost: a fraction of the dense network (up to 1), or an absolute number; how many milliseconds a forward pass may
    take, or how many times faster it is to be, on the `runtime`. Of quality: by how much the task's metric may be
    worse than the dense network's, in the metric's own units, or on what share of samples the slim network must answer
    as the dense one does. Bounds of quality are met by a search, over costs down to those that are given.
    """

    macs: Number | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="multiply-adds that may stay: a fraction of dense up to 1, over 1 a number",
    )
    params: Number | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="parameters that may stay: a fraction of dense up to 1, over 1 a number",
    )
    channels: Number | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="channels that may stay: a fraction of dense up to 1, over 1 a number",
    )
    latency_ms: Number | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="milliseconds that a forward pass may take on the `runtime`",
    )
    speedup: Number | None = Field(
        default=None,
        ge=1,
        allow_inf_nan=False,
        description="how many times faster than the dense network on the `runtime`",
    )
    quality_drop: Number | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="by how much the task's metric may be worse than the dense network's, in the metric's units",
    )
    agreement: Number | None = Field(
        default=None, gt=0, le=1, description="on what share of samples the network must answer as the dense one does"
    )

    @model_validator(mode="after")
    def _any(self) -> BudgetSpec:
        if not self.model_dump(exclude_none=True):
            raise ValueError("give macs, params, channels, latency_ms, speedup, quality_drop or agreement")
        return self

    @property
    def costs(self) -> dict[str, float]:
        """The bounds of cost that are given, by name."""
        return self.model_dump(exclude_none=True, exclude=set(QUALITY))

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds of quality that are given, by name."""
        return self.model_dump(exclude_none=True, include=set(QUALITY))

    def as_dict(self) -> Budget:
        """Gives the budget of one plan.

        Returns:
            The bounds of cost, or all of the MACs if only quality is bounded.
        """
        return cast(Budget, self.costs) or {"macs": 1.0}


class SearchSpec(Strict):
    """How a bound of quality is met: by at most `trials` networks, each cut, recovered and fine-tuned for `epochs`."""

    trials: Whole = Field(default=7, ge=1, description="how many networks are tried at most")
    epochs: Whole = Field(default=0, ge=0, description="how long each is fine-tuned")


class ScanSpec(Strict):
    """How the scan of each group's sensitivity is made: on about `images` of the calibration set, at `ratios`.

    Without a calibration set, or with one of 16 images or fewer, it is made by random inputs.
    """

    images: Whole | None = Field(
        default=None,
        ge=2,
        description="calibration images that are looked at, about, or random inputs; by default 96 images, 32 inputs",
    )
    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.125, 0.25, 0.5, 0.75),
        min_length=1,
        description="the shares of a group's units that are removed; in between a loss rises as a power of the share",
    )


class PruneSpec(Strict):
    """How the network is cut. `planning_seconds` bounds how long planning for a latency or a speedup measures."""

    schedule: ScheduleSpec | None = Field(default=None, description="a cut in rounds; by default all is cut at once")
    criterion: str = Field(
        default="l1", description="how units are ranked: a name of `structprune list criteria`, or `file.py:Name`"
    )
    combine: str | None = Field(
        default=None, description="how scores by coupled layers are put together; by default the criterion's own way"
    )
    budget: BudgetSpec = Field(description="what may stay, how fast and how good")
    search: SearchSpec | None = Field(default=None, description="how a bound of quality is searched for")
    allocation: str = Field(
        default=AUTO,
        description="how the budget is shared among groups: a name, or `file.py:Name`; `auto`: `knapsack`, and "
        "`uniform` where a method of `train` plans the cut",
    )
    scan: ScanSpec | None = Field(
        default=None, description="how the scan is made, for an allocation that has one (`sensitivity`, `knapsack`)"
    )
    min_channels: Whole = Field(default=1, ge=1, description="how many channels each layer keeps at least")
    max_ratio: Number = Field(default=0.9, gt=0, le=1, description="the largest share of a group's units that may go")
    align: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="what widths are multiples of; `auto`: the channel counts that the runtime is fast with",
    )
    ignore: tuple[str, ...] = Field(
        default=(), description="paths of modules, or names of groups, with `*` and `?`, whose channels stay"
    )
    form: Literal["auto", "module", "graph"] = Field(
        default="auto",
        description="what the slim network is: your module, an `fx.GraphModule`, or what the budget needs",
    )
    surgery: Literal["drop", "merge"] = Field(
        default="drop",
        description="what becomes of channels that go: they are dropped, or merged with those that are like them",
    )
    rotate: bool = Field(
        default=False,
        description="whether channels that blocks hand on without an activation are mixed first, at no cost, so that "
        "what goes is what later layers miss least",
    )
    planning_seconds: Number = Field(
        default=600.0, gt=0, allow_inf_nan=False, description="how long planning for a latency or a speedup may measure"
    )

    @field_validator("align", mode="before")
    @classmethod
    def _align(cls, value: Any) -> Any:
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{value!r} is neither auto nor a whole number of at least 1")
        return value

    @model_validator(mode="after")
    def _searched(self) -> PruneSpec:
        if self.search is not None and not self.budget.bounds:
            raise ValueError("search is for a bound of quality: give budget quality_drop or agreement, or leave it out")
        return self

    @field_validator("criterion")
    @classmethod
    def _criterion(cls, name: str, info: ValidationInfo) -> str:
        return checked_name(name, info) if ":" in name else known_names.CRITERIA.check(name, info)

    @field_validator("combine")
    @classmethod
    def _combine(cls, name: str | None, info: ValidationInfo) -> str | None:
        return None if name is None else known_names.COMBINE.check(name, info)

    @field_validator("allocation")
    @classmethod
    def _allocation(cls, name: str, info: ValidationInfo) -> str:
        return checked_name(name, info) if ":" in name else known_names.ALLOCATIONS.check(name, info, AUTO)
