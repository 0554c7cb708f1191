"""What compare.json and the files of a comparison's folders hold, and what each of the fields means."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, RootModel

from ..json_records import Interval, JsonRecord
from ..report.records import Budget, Counts, Quality
from ..runtimes.machine import Environment

SCHEMA: Literal["structprune.compare/1"] = "structprune.compare/1"


class RowGate(JsonRecord):
    """A network beside the masked dense one."""

    passed: bool = Field(description="whether they are equal in float64")
    max_rel: float | None = Field(description="the largest relative difference; `null` where it can't be told")
    detail: str = Field(default="", description="why it can't be told")
    unclear: bool = Field(
        default=False,
        description="whether they differ, and a statistic is taken over channels, so that it says nothing",
    )


class RowQuality(JsonRecord):
    """The metric on held-out data, by stage."""

    pruned: float = Field(description="of the network as cut")
    recovered: float | None = Field(default=None, description="after recovery; left out without")
    final: float = Field(description="in the end")
    kl: dict[str, float | None] | None = Field(
        default=None, description="KL from the dense network in nats, by stage; left out with labels"
    )


class Asked(JsonRecord):
    """The speed that `--as-fast` asks for, and what was reached."""

    speedup: float = Field(description="what torch-pruning's network was measured to have")
    ci95: Interval = Field(description="its 95 % interval")
    of: str = Field(description="that network")
    reached: float | None = Field(default=None, description="how many times as fast as that network this one is")
    reached_ci95: Interval | None = Field(default=None, description="its 95 % interval")


class CutRow(JsonRecord):
    """A network that was cut."""

    network: str = Field(description="its folder")
    tool: str = Field(description="`structprune` or `torch-pruning`")
    align: int | None = Field(default=None, description="what torch-pruning's widths are rounded to")
    macs: int = Field(description="multiply-adds")
    cut: float = Field(description="MACs of dense ÷ those of this network")
    params: int = Field(description="parameters")
    gate: RowGate = Field(description="whether it is the masked dense network")
    quality: RowQuality = Field(description="how good it is")
    kept_importance: float | None = Field(default=None, description="mean share of the scores that stays in a group")
    ratio: float | None = Field(default=None, description="torch-pruning's pruning ratio")
    seconds: float | None = Field(description="from the recipe to the cut network; `null` where it was interrupted")
    search_seconds: float | None = Field(default=None, description="the search for torch-pruning's ratio")
    peak_bytes: int = Field(description="the most memory that the process held until then")
    goal: Asked | None = Field(default=None, alias="asked", description="what `--as-fast` asks for")


class Row(CutRow):
    """A network that was cut and timed."""

    ms: float = Field(description="median milliseconds of a forward pass")
    speedup: float = Field(description="times as fast as the dense network")
    ci95: Interval = Field(description="its 95 % interval")
    efficiency: float = Field(description="speedup ÷ MACs cut")
    timing: list[str] = Field(description="what disturbed the timing")


class FailedRow(JsonRecord):
    """A network that a tool could not make. Other fields are as far as it came."""

    model_config = ConfigDict(extra="allow")

    network: str = Field(description="its folder")
    tool: str = Field(description="`structprune` or `torch-pruning`")
    align: int | None = Field(default=None, description="what torch-pruning's widths are rounded to")
    error: str = Field(description="what it raised, or how its process ended")
    goal: Asked | None = Field(default=None, alias="asked", description="what `--as-fast` asks for")


class Planning(JsonRecord):
    """planning.json: what it took to plan structprune's network."""

    seconds: float | None = Field(description="from the recipe to the cut network; `null` where it was interrupted")
    peak_bytes: int = Field(description="the most memory that the process held until then")


class PeerCheck(JsonRecord):
    """torch-pruning's network beside the dense one with all that was removed set to zero, in float64."""

    max_rel: float | None = Field(description="the largest relative difference; `null` where it can't be told")
    detail: str = Field(default="", description="why it can't be told")


class PeerResult(JsonRecord):
    """result.json: what came of torch-pruning's process."""

    align: int = Field(description="what widths are rounded to")
    ratio: float = Field(description="the pruning ratio")
    seconds: float = Field(description="from the recipe to the cut network, without the search")
    search_seconds: float = Field(description="the search for the ratio")
    peak_bytes: int = Field(description="the most memory that the process held until then")
    macs: Counts = Field(description="multiply-adds")
    params: int = Field(description="parameters")
    gate: PeerCheck = Field(description="whether it is the masked dense network")
    quality: Quality = Field(description="how good it is")


class PeerFailure(JsonRecord):
    """result.json where torch-pruning raised something. Other fields are as far as it came."""

    model_config = ConfigDict(extra="allow")

    align: int = Field(description="what widths were to be rounded to")
    error: str = Field(description="in which stage, and what it raised")


PeerOutcome = RootModel[PeerResult | PeerFailure]


class Dense(JsonRecord):
    """The dense network that all tools start from."""

    macs: int = Field(description="multiply-adds")
    quality: float = Field(description="its metric")


class NetworkWidths(JsonRecord):
    """A group's width in each network."""

    name: str = Field(description="the leading layer")
    channels: int = Field(description="of the dense network")
    kept: dict[str, int] = Field(
        description="channels that stay, by network; those that could not be made are left out"
    )


class Comparison(JsonRecord):
    """One recipe and dense network, by structprune and by torch-pruning."""

    schema_: Literal["structprune.compare/1"] = Field(
        alias="schema", description="rises when a field changes its meaning or goes, not when one is added"
    )
    model: str = Field(description="what the recipe's model is called")
    criterion: str = Field(description="how structprune ranked filters")
    allocation: str = Field(description="how it shared the budget among layers")
    budget: Budget = Field(description="what it was asked for")
    as_fast: bool = Field(default=False, description="whether structprune also ran to be as fast as torch-pruning")
    kept_by: str = Field(description="the criterion by whose scores `kept_importance` is reckoned")
    runtime: str = Field(description="what all were timed on")
    metric: str = Field(description="what quality is measured by")
    images: int | None = Field(default=None, description="held-out samples; early versions did not write it")
    higher_is_better: bool = Field(default=True, description="whether more of the metric is better")
    dense: Dense = Field(description="the network that all start from")
    rows: list[Row | FailedRow] = Field(description="each network")
    widths: list[NetworkWidths] = Field(default_factory=list, description="each group; early versions did not write it")
    notes: list[str] = Field(description="what torch-pruning lacks, and what else to know")
    environment: Environment = Field(description="where it was measured")

    def finished(self) -> list[Row]:
        """Picks the networks that were cut and timed.

        Returns:
            Their rows, in order.
        """
        return [row for row in self.rows if isinstance(row, Row)]

    def failed(self) -> list[FailedRow]:
        """Picks the networks that could not be made.

        Returns:
            Their rows, each with its error.
        """
        return [row for row in self.rows if isinstance(row, FailedRow)]
