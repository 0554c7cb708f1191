"""What compare_runs.json holds, and what each of its fields means: finished runs side by side."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..json_records import Interval, JsonRecord
from ..report.records import Budget, Counts, Latency
from ..runtimes.machine import Environment

SCHEMA: Literal["structprune.compare_runs/1"] = "structprune.compare_runs/1"


class StageMetric(JsonRecord):
    """The metric of one network of a run."""

    stage: str = Field(description="which network: `dense`, `as cut`, `recovered`, `fine-tuned`, …")
    value: float | None = Field(description="the metric; `null` where it is not a finite number")
    ci95: Interval | None = Field(description="its 95 % interval; `null` where none is known")


class ComparedRun(JsonRecord):
    """A finished run, as its files have it."""

    name: str = Field(description="what it is called here: its folder's name, or more of its path where two have one")
    folder: str = Field(description="where it is, from the folder of this file")
    model: str = Field(description="what was pruned")
    criterion: str = Field(description="how filters were ranked")
    allocation: str = Field(description="how the budget was shared among layers")
    budget: Budget = Field(description="what was asked for")
    state: str = Field(description="its verdict: `good`, `poor` or `broken`")
    verdict: str = Field(description="the same in words")
    gate_passed: bool = Field(description="whether the acceptance gate passed")
    metric: str = Field(description="what quality is measured by")
    higher_is_better: bool = Field(description="whether more of the metric is better")
    images: int = Field(description="held-out samples")
    quality: list[StageMetric] = Field(description="the metric by stage; the last one is that of the slim network")
    macs: Counts = Field(description="multiply-adds")
    params: Counts = Field(description="parameters")
    onnx_bytes: int | None = Field(description="size of slim.onnx")
    latency: Latency | None = Field(description="dense and slim timed side by side; `null` where nothing was timed")
    measured: str | None = Field(description="when it ended, in UTC; `null` where its folder has no log")
    environment: Environment = Field(description="where it was measured")
    is_trained: bool = Field(description="whether the dense or the slim network was trained, so that its seed counts")
    random_weights: bool = Field(
        default=False, description="whether the dense network was never trained, so that likeness to it says nothing"
    )

    @property
    def final(self) -> StageMetric:
        """The metric of the slim network in the end."""
        return self.quality[-1]


class Ranking(JsonRecord):
    """Which run is best in one measure, and from which others its interval is apart."""

    measure: str = Field(description="`speedup` over the dense network, `ms` of a forward pass, or the metric's name")
    best: str | None = Field(description="the run that is best; `null` where they are not ranked")
    apart: list[str] = Field(description="runs whose 95 % interval lies wholly on the worse side of the best one's")
    overlap: list[str] = Field(description="runs whose interval overlaps the best one's: they are not told apart")
    unknown: list[str] = Field(description="runs that have no value, or no interval to tell by")
    reason: str = Field(default="", description="why the runs are not ranked; empty where they are")


class Fronts(JsonRecord):
    """The runs that no other one beats in both quality and cost, the cheapest first."""

    macs: list[str] = Field(description="where the cost is multiply-adds; empty where qualities do not compare")
    speed: list[str] = Field(description="where it is the measured speed; empty where speeds do not compare either")


class LayerWidths(JsonRecord):
    """A group's width by each run."""

    name: str = Field(description="the leading layer")
    channels: int | None = Field(description="of the dense network; `null` where the runs do not agree on it")
    kept: list[int | None] = Field(description="channels that each run keeps; `null` where it has no such group")
    shared: list[int | None] = Field(
        description="units that each run and the first one keep both; `null` where a plan is not there"
    )
    same: bool = Field(description="whether all keep the same units, and merge the same into the same")


class RecipeKey(JsonRecord):
    """A key of the recipe that differs."""

    key: str = Field(description="its name, with dots")
    values: list[Any] = Field(description="its value in each run; `null` where it is not set")


class RunComparison(JsonRecord):
    """Finished runs side by side."""

    schema_: Literal["structprune.compare_runs/1"] = Field(
        alias="schema", description="rises when a field changes its meaning or goes, not when one is added"
    )
    verdict: str = Field(description="which run is faster and which is better, as far as intervals tell them apart")
    notes: list[str] = Field(description="what does not compare, and what else to know")
    bench: str = Field(
        description="the command that times the slim networks side by side, from the folder of this file; empty where "
        "a run is without one, and of more than eight runs"
    )
    runs: list[ComparedRun] = Field(description="each run, in the order in which they were given")
    speed: Ranking = Field(description="by measured speed")
    quality: Ranking = Field(description="by the metric of the slim network")
    fronts: Fronts = Field(description="the Pareto fronts")
    widths: list[LayerWidths] = Field(description="each group; empty where the runs prune different networks")
    recipe: list[RecipeKey] = Field(description="the keys of the recipes that differ")
