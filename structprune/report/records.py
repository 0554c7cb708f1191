"""What report.json holds: a record for each part, and what each of its fields means.

Enters nothing; leaves `Report` and its parts. `report` makes them, `verdict`, `table` and `html` read them, the
table of fields on the site and docs/report.schema.json are made of them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from ..json_records import Interval, JsonRecord
from ..runtimes.machine import Environment
from ..runtimes.other_runtimes import OtherRuntime, TimedOn
from .exported_files import ExportedFormat
from .gate import Gate
from .training_records import Epochs, Finetuning, PruningRound

SCHEMA: Literal["structprune.report/1"] = "structprune.report/1"
Amount = int | float  # a share of the dense network, or a number


class Verdict(JsonRecord):
    """What came of the run."""

    state: Literal["good", "poor", "broken"] = Field(
        description="`poor`: no faster, quality lost, or short of what was asked; `broken`: less than half of the "
        "dense network's quality, or not proven. Accuracy counts as lost where it fell by more than two standard errors"
    )
    text: str = Field(description="a line with the speedup and its interval, the size and the quality")


class Model(JsonRecord):
    """What was pruned: its name, beside the recipe's own `model`."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(
        description="what it is called. The other fields are those of the recipe's model: `pretrained`, `weights` and "
        "`kwargs` of timm's; or `source`, `kwargs` and `weights`; or `run` and `code`"
    )


class Budget(JsonRecord):
    """What was asked for. A field that was not asked for is left out."""

    macs: Amount | None = Field(
        default=None, description="multiply-adds that may stay: a fraction of dense up to 1, over 1 a number"
    )
    params: Amount | None = Field(default=None, description="parameters that may stay, likewise")
    channels: Amount | None = Field(default=None, description="channels that may stay, likewise")
    speedup: Amount | None = Field(default=None, description="how many times as fast as the dense network")
    latency_ms: Amount | None = Field(default=None, description="milliseconds that a forward pass may take")
    quality_drop: Amount | None = Field(
        default=None, description="by how much the task's metric may be worse than the dense network's"
    )
    agreement: Amount | None = Field(
        default=None, description="the share of samples that slim must answer as the dense network does"
    )

    def asked(self) -> dict[str, float]:
        """What was asked for, by name."""
        return self.model_dump(exclude_none=True)


class Trial(JsonRecord):
    """One network that was tried within a bound of quality."""

    budget: Budget = Field(description="the cost that it was planned to")
    within: bool = Field(description="whether it is within the bounds")
    macs: float | None = Field(default=None, description="the share of MACs that stays")
    found: dict[str, float] = Field(
        default_factory=dict, description="what was measured for each bound, by the bound's name"
    )
    error: str = Field(
        default="", description="why there is no measurement: it could not be fine-tuned, or its gate failed"
    )


class Bound(JsonRecord):
    """A bound of quality, and what the final network has."""

    name: str = Field(description="`quality_drop` or `agreement`")
    asked: float = Field(description="the bound")
    validation: float = Field(description="what the final network has on the split that it was chosen by")
    held_out: float = Field(description="what it has on held-out data, by which nothing was chosen")
    met: bool = Field(description="whether `held_out` is within the bound")


class Search(JsonRecord):
    """How the budget of cost was found where a bound of quality was asked for."""

    asked: Budget = Field(description="the whole budget")
    trials: list[Trial] = Field(description="the networks tried, in turn")
    held: Literal["cost", "quality"] = Field(
        description="`cost`: all that was asked for is within the bounds; `quality`: they stopped the cut"
    )
    images: int = Field(description="samples of the validation split")
    budget: Budget = Field(description="the costs that the final network was planned to")
    bounds: list[Bound] = Field(description="each bound that was asked for")


class Limits(JsonRecord):
    """What a cut had to keep to."""

    min_channels: int = Field(default=1, description="the fewest units that stay in a group")
    max_ratio: float = Field(default=1.0, description="the largest share of a group's units that may go")
    align: int | dict[str, int] = Field(
        default=1, description="what widths are multiples of: a number, or the runtime's multiples by kind of layer"
    )
    ignore: list[str] = Field(default_factory=list, description="globs of the module paths that stay whole")


class Amounts(JsonRecord):
    """An amount of both networks."""

    dense: int = Field(description="of the dense network")
    slim: int = Field(description="of the slim network")


class Cut(JsonRecord):
    """One cut of a plan that was composed by `Plan.then`."""

    criterion: str = Field(description="what ranked the filters")
    allocation: str = Field(description="how the budget was shared among layers")
    budget: Budget = Field(description="what was asked of this cut")
    constraints: Limits = Field(description="its constraints")
    macs: Amounts = Field(description="multiply-adds before and after this cut")
    params: Amounts = Field(description="parameters, likewise")


class Constraints(Limits):
    """What the plan had to keep to. Of a plan by `Plan.then` there are only `cuts`."""

    cuts: list[Cut] = Field(default_factory=list, description="what was asked of each cut, in turn")


class MacsByOperator(JsonRecord):
    """Multiply-adds of both networks for each operator."""

    dense: dict[str, int] | None = Field(description="by operator (`conv`, `linear`, `matmul`, …)")
    slim: dict[str, int] | None = Field(description="likewise")


class Counts(Amounts):
    """An amount of both networks, and by how much it was cut."""

    cut: float = Field(description="dense ÷ slim")


class Macs(Counts):
    """Multiply-adds of a forward pass with one sample."""

    by_operator: MacsByOperator = Field(description="as planned")
    fvcore: MacsByOperator = Field(
        description="as fvcore counts them on the finished networks; `null` where it fails on a model"
    )


class Onnx(JsonRecord):
    """The ONNX files."""

    opset: int = Field(description="the version of ONNX's operators")
    dense_bytes: int | None = Field(description="size of dense.onnx")
    slim_bytes: int | None = Field(description="size of slim.onnx")


class Pair(JsonRecord):
    """A number of each network."""

    dense: float = Field(description="of the dense network")
    slim: float = Field(description="of the slim network")


class Latency(TimedOn):
    """Dense and slim timed side by side on the runtime that the plan was made for."""

    rounds: int = Field(description="how often the networks were opened anew")
    turns: int = Field(description="interleaved turns in all rounds")
    dense_ms: float = Field(description="median milliseconds of a forward pass")
    slim_ms: float = Field(description="likewise")
    slim_ms_ci95: Interval | None = Field(
        default=None, description="the 95 % interval of `slim_ms`; early versions did not write it"
    )
    speedup: float = Field(description="median of the ratios dense ÷ slim within a turn")
    ci95: Interval = Field(description="its 95 % interval")
    notes: list[str] = Field(default_factory=list, description="what disturbed the timing")
    cores: list[int] | None = Field(
        default=None, description="those that it was pinned to; `null` where it was not pinned"
    )
    joules: Pair | None = Field(
        default=None,
        description="what the processor packages took for a forward pass, idle share included; `null` where the "
        "machine does not tell",
    )
    efficiency: float = Field(
        description="speedup ÷ MACs cut: 1 where slim does as many MACs a second as the dense network"
    )
    gmacs_per_second: Pair = Field(description="10⁹ MACs a second")


class PlannedRound(JsonRecord):
    """One round of planning, whose network was timed beside the dense one."""

    goal: float = Field(description="the speedup that was asked for")
    predicted: float = Field(description="the speedup that the cost model expected")
    measured: float = Field(description="the speedup that was measured")
    ci95: Interval = Field(description="its 95 % interval")


class PlannedLatency(JsonRecord):
    """What the cost model expected."""

    dense: float = Field(description="milliseconds of the dense network")
    slim: float = Field(description="milliseconds of the slim network")
    rounds: list[PlannedRound] = Field(default_factory=list, description="each round of planning")
    correction: float = Field(
        default=1.0, description="what the costs of slim networks were multiplied by, as measured ones took longer"
    )


class Layer(JsonRecord):
    """A layer's kernels timed one by one, of the ONNX files in onnxruntime on the CPU, whatever the runtime is."""

    layer: str = Field(description="module path")
    dense_ms: float = Field(description="median milliseconds; 0 where the network has no such layer")
    slim_ms: float = Field(description="likewise")


class Quantised(JsonRecord):
    """How good and how large a network in int8 is."""

    quality: float = Field(description="its metric, that of `quality`")
    kl: float | None = Field(description="KL from dense float32 in nats; `null` where there are labels")
    bytes: int = Field(description="size of its ONNX file")


class Int8(Quantised):
    """A network beside the others, in float32 and int8."""

    network: str = Field(description="`dense`, `slim`, `dense-int8` or `slim-int8`")
    ms: float | None = Field(description="median milliseconds; `null` where the runtime is torch's, which runs no int8")
    speedup: float | None = Field(description="from dense float32; `null` likewise")
    ci95: Interval | None = Field(description="its 95 % interval; `null` likewise")
    pruned_speedup: float | None = Field(
        default=None, description="of a slim network, from the dense one in the same numbers; `null` likewise"
    )
    pruned_ci95: Interval | None = Field(default=None, description="its 95 % interval; `null` likewise")


class Data(JsonRecord):
    """What a user should know of the data."""

    notes: list[str] = Field(description="what was assumed, split off or left out")
    skipped: list[str] = Field(description="files that could not be read")


class Quality(JsonRecord):
    """What was measured of the networks on held-out data, by stage."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)  # a stage of the user's own

    metric: str = Field(
        description="that of the task, `accuracy` by default (with labels), or what it compares with the dense "
        "network, `agreement` by default (top-1)"
    )
    images: int = Field(description="held-out samples")
    higher_is_better: bool = Field(default=True, description="whether more of the metric is better")
    random_weights: bool | None = Field(
        default=None,
        description="whether the dense network was never trained, so that likeness to it says little; left out with "
        "labels",
    )
    dense: float = Field(description="the dense network's")
    pruned: float = Field(description="of the network as cut")
    recovered: float | None = Field(
        default=None, description="after recovery, before fine-tuning; left out without recovery"
    )
    final: float = Field(description="of the slim network in the end")
    kl: dict[str, float | None] | None = Field(
        default=None, description="KL from the dense network in nats, by stage; left out with labels"
    )
    others: dict[str, dict[str, float | None]] = Field(
        default_factory=dict, description="the task's further metrics, each by stage"
    )
    likeness: dict[str, dict[str, float | None]] = Field(
        default_factory=dict, description="what else is compared with the dense network, each by stage"
    )

    def stages(self) -> dict[str, float]:
        """The metric of each network that was measured, by stage."""
        known = {"dense": self.dense, "pruned": self.pruned, "recovered": self.recovered, "final": self.final}
        return {name: value for name, value in known.items() if value is not None} | (self.__pydantic_extra__ or {})


class RecoveryStep(JsonRecord):
    """What one method of recovery did. Its other fields are its keys in the recipe."""

    model_config = ConfigDict(extra="allow")

    method: str = Field(description="the recovery's name")
    layers: int = Field(description="how many it changed")
    notes: list[str] = Field(description="what a user should know of it")
    seconds: float = Field(description="how long it took")
    quality: float = Field(description="the metric after it")
    kl: float | None = Field(description="KL from the dense network after it; `null` where there are labels")

    def option(self, name: str) -> Any:
        """A key of the method in the recipe; None where it has none of that name."""
        return (self.model_extra or {}).get(name)


class Barrier(JsonRecord):
    """Channels that had to stay."""

    op: str = Field(description="the operator")
    node: str = Field(description="its node in the captured graph")
    module: str = Field(description="the module that called it")
    reason: str = Field(description="why they stay")
    channels: int = Field(description="how many")
    line: str = Field(default="", description="the line of code")


class Group(JsonRecord):
    """Channels that go or stay together."""

    name: str = Field(description="the leading layer")
    channels: int = Field(description="channels of the leading layer")
    units: int = Field(description="the smallest parts of it that can be removed")
    params: int = Field(description="parameters that it controls")
    macs: int = Field(description="multiply-adds that it controls")
    kind: Literal["exact", "exact in evaluation", "statistic-changing"] = Field(
        description="whether removing channels is masking them with zero, always or without a batch's statistics"
    )
    kept_channels: int | None = Field(default=None, description="channels of the leading layer that stay")
    merged_units: int | None = Field(
        default=None,
        description="units that were merged into those that stay, by `prune.surgery: merge`; the others went",
    )


class Report(JsonRecord):
    """Every run ends with report.json: what was asked, done and measured."""

    schema_: Literal["structprune.report/1"] = Field(
        alias="schema", description="rises when a field changes its meaning or goes, not when one is added"
    )
    verdict: Verdict | None = Field(default=None, description="what came of the run; early versions did not write it")
    model: Model = Field(description="what was pruned")
    criterion: str = Field(description="how filters were ranked")
    allocation: str = Field(description="how the budget was shared among layers")
    budget: Budget = Field(description="what was asked for")
    search: Search | None = Field(default=None, description="`null` without a bound of quality")
    constraints: Constraints = Field(description="what the plan had to keep to")
    form: str = Field(description="what the slim network is: `module`, your own class, or `graph`, an `fx.GraphModule`")
    notes: list[str] = Field(
        description="where the plan ended more than 1 % below its budget, and why; why the form is `graph`; what a "
        "criterion could not score; usually empty"
    )
    macs: Macs = Field(description="multiply-adds")
    params: Counts = Field(description="parameters")
    onnx: Onnx = Field(description="the ONNX files")
    formats: list[ExportedFormat] = Field(
        default_factory=list, description="what the slim network was also written as, by the recipe's `export.formats`"
    )
    latency: Latency | None = Field(description="`null` if the gate failed")
    int8: list[Int8] = Field(
        default_factory=list, description="dense and slim in float32 and int8; empty unless asked for"
    )
    also: list[OtherRuntime] = Field(default_factory=list, description="a row for each of the recipe's `bench.also`")
    planned_latency: PlannedLatency | None = Field(default=None, description="`null` without a budget of latency")
    layers: list[Layer] = Field(default_factory=list, description="where the time goes, in the order of the network")
    quality: Quality = Field(description="what was measured on held-out data")
    recovery: list[RecoveryStep] = Field(default_factory=list, description="each method of recovery, in turn")
    rounds: list[PruningRound] = Field(
        default_factory=list, description="each round of a cut by `prune.schedule`, in turn; empty for one at once"
    )
    finetuning: Finetuning | None = Field(default=None, description="`null` where the slim network was not trained")
    epochs: Epochs = Field(default=Epochs(), description="how the trainings went, epoch by epoch")
    gate: Gate = Field(description="whether slim is proven to be the network that the plan describes")
    barriers: list[Barrier] = Field(default_factory=list, description="channels that had to stay, and why")
    groups: list[Group] = Field(description="what could be pruned")
    environment: Environment = Field(description="where it was measured")
    data: Data = Field(default=Data(notes=[], skipped=[]), description="what a user should know of the data")
