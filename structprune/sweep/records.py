"""What sweep.json holds, and what each of its fields means."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..json_records import JsonRecord
from ..report.training_records import PruningRound
from ..runtimes.machine import Environment

SCHEMA: Literal["structprune.sweep/1"] = "structprune.sweep/1"


class Spread(JsonRecord):
    """A number over seeds."""

    mean: float = Field(description="its mean")
    std: float | None = Field(description="its sample standard deviation; `null` of one run")


class FinishedRun(JsonRecord):
    """One arm with one seed, as its report.json has it."""

    arm: str = Field(description="the arm")
    seed: int = Field(description="the recipe's seed")
    folder: str = Field(description="its folder inside the sweep's")
    metric: str = Field(description="what quality is measured by")
    higher_is_better: bool = Field(description="whether more of the metric is better")
    dense: float = Field(description="the metric of the dense network")
    quality: float = Field(description="the metric of the slim network in the end")
    dense_macs: int = Field(description="multiply-adds of the dense network")
    macs: int = Field(description="multiply-adds of the slim network")
    dense_params: int = Field(description="parameters of the dense network")
    params: int = Field(description="parameters of the slim network")
    dense_ms: float = Field(description="median milliseconds of a forward pass of the dense network")
    ms: float = Field(description="likewise of the slim network")
    speedup: float = Field(description="how many times as fast as dense the slim network was measured to be")
    rounds: list[PruningRound] = Field(
        default_factory=list, description="each round of a cut in several; empty without a schedule"
    )


class FailedRun(JsonRecord):
    """One arm with one seed, which ended without a proven network."""

    arm: str = Field(description="the arm")
    seed: int = Field(description="the recipe's seed")
    folder: str = Field(description="its folder inside the sweep's")
    error: str = Field(description="what it said in the end, or how its process ended")


class RoundSummary(JsonRecord):
    """One round of an arm's cut, over the seeds whose runs went as far."""

    round: int = Field(description="counted from 1")
    n: int = Field(description="runs that had it")
    cut: Spread = Field(description="multiply-adds of dense ÷ those of the network that it left")
    params: Spread = Field(description="parameters of dense ÷ those of the network that it left")
    pruned: Spread = Field(description="the metric as cut in this round")
    recovered: Spread | None = Field(description="after recovery; `null` without")
    final: Spread = Field(description="the metric at the end of the round")


class ArmSummary(JsonRecord):
    """An arm over the seeds whose runs finished."""

    arm: str = Field(description="its name")
    labels: dict[str, str] = Field(description="the label of its value on each axis of its grid")
    settings: dict[str, Any] = Field(description="what it changes in the recipe, by dotted keys")
    n: int = Field(description="runs that finished")
    failed: int = Field(description="runs that failed")
    metric: str | None = Field(description="what quality is measured by; `null`, as all below, where no run finished")
    higher_is_better: bool | None = Field(description="whether more of the metric is better")
    dense: Spread | None = Field(description="the metric of the dense network")
    quality: Spread | None = Field(description="the metric of the slim network in the end")
    macs: Spread | None = Field(description="multiply-adds of the slim network")
    cut: Spread | None = Field(description="multiply-adds of dense ÷ those of slim")
    params: Spread | None = Field(description="parameters of the slim network")
    ms: Spread | None = Field(description="median milliseconds of a forward pass of the slim network")
    speedup: Spread | None = Field(description="how many times as fast as dense it was measured to be")
    rounds: list[RoundSummary] = Field(
        default_factory=list, description="each round of a cut in several; empty without a schedule"
    )


class ArmTiming(JsonRecord):
    """timings/ARM.json: the networks of an arm, timed beside the dense one when no run was at work."""

    runtime: str = Field(description="what they were timed on")
    dense_ms: float = Field(description="median milliseconds of a forward pass of the dense network")
    ms: dict[str, float] = Field(description="likewise of the slim network of each seed")
    speedup: dict[str, float] = Field(description="how many times as fast as dense each of them is")


class Difference(JsonRecord):
    """Two arms beside each other, over the seeds that both have."""

    better: str = Field(description="the arm whose mean is better")
    worse: str = Field(description="the other arm")
    n: int = Field(description="how many seeds both have")
    by: Spread | None = Field(description="the difference within a seed; `null` where they share none")
    p: float | None = Field(description="of the paired t-test; `null` of fewer than two seeds")
    p_holm: float | None = Field(description="corrected for the number of pairs in the family; `null` likewise")
    exceeds: bool | None = Field(
        description="whether the difference exceeds the spread, that is `p_holm` is below 0.05; `null` likewise"
    )


class Family(JsonRecord):
    """Arms with the same network, data, metric and budget, beside each other."""

    name: str = Field(description="the budget; of a sweep over several networks, after the network's name")
    metric: str = Field(description="what quality is measured by")
    best: str = Field(description="the arm with the best mean")
    references: list[str] = Field(
        description="the arms that the others are compared with; empty where each is compared with each"
    )
    differences: list[Difference] = Field(description="each pair that was compared")


class Fronts(JsonRecord):
    """The arms that no other one beats both in mean quality and in cost, the cheapest first."""

    macs: list[str] = Field(description="where the cost is multiply-adds")
    ms: list[str] = Field(description="where it is the measured latency")


class SweepReport(JsonRecord):
    """Every sweep ends with sweep.json: each run, and each arm over its seeds."""

    schema_: Literal["structprune.sweep/1"] = Field(
        alias="schema", description="rises when a field changes its meaning or goes, not when one is added"
    )
    name: str = Field(description="the name of its file")
    seeds: list[int] = Field(description="the seeds that each arm was run with")
    arms: list[ArmSummary] = Field(description="each arm, in the order of the file")
    fronts: Fronts = Field(description="the Pareto fronts")
    families: list[Family] = Field(description="which differences between arms exceed the spread")
    runs: list[FinishedRun] = Field(description="each run that finished")
    failures: list[FailedRun] = Field(description="each run that failed")
    environment: Environment = Field(description="the machine that the sweep was started on")
