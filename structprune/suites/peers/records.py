"""What is measured of a network under both tools, and what a file says of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...runtimes import Benchmark
from ..pool import Record
from ..worker import error_line


@dataclass(frozen=True)
class Settings:
    """How networks are pruned and timed.

    Attributes:
        cut: The share of the MACs that goes.
        align: Widths are multiples of this.
        repeats: Turns in which preparation is timed.
        seconds: For the latencies of a network.
        threads: Of onnxruntime.
        seed: Of the weights and the image.
    """

    cut: float = 0.5
    align: int = 1
    repeats: int = 3
    seconds: float = 10.0
    threads: int = 1
    seed: int = 0


@dataclass
class ToolResult:
    """One tool on one network, filled stage by stage; what a tool that stopped did not come to is None.

    Attributes:
        tool: Its name.
        macs: MACs of its slim network.
        params: Parameters of it.
        gate: Whether it passed structprune's gate; None for torch-pruning's.
        ratio: torch-pruning's pruning ratio, nearest to the budget.
        search_s: Seconds that finding it took.
        prepare_s: Seconds from the dense network to the slim one, a turn each.
        ms: Milliseconds of a forward pass.
        speedup: How many times as fast as the dense network.
        ci95: Its 95 % interval.
        error: At which stage the tool stopped, and why.
    """

    tool: str
    macs: int | None = None
    params: int | None = None
    gate: bool | None = None
    ratio: float | None = None
    search_s: float | None = None
    prepare_s: list[float] = field(default_factory=list)
    ms: float | None = None
    speedup: float | None = None
    ci95: tuple[float, float] | None = None
    error: str = ""

    def stop(self, stage: str, error: Exception) -> None:
        """Notes what a tool raised, which is part of the comparison, whatever it is."""
        self.error = f"{stage}: {error_line(error, 400)}"


@dataclass
class Comparison:
    """One network under both tools.

    Attributes:
        model: Its name.
        input: The shape of one image.
        macs: Its MACs.
        params: Its parameters.
        ours: structprune on it.
        theirs: torch-pruning on it.
        benchmark: The latencies of the dense network and of both slim ones, timed in turns.
        benchmark_error: Why there is none.
    """

    model: str
    input: tuple[int, ...]
    macs: int
    params: int
    ours: ToolResult
    theirs: ToolResult
    benchmark: Benchmark | None = None
    benchmark_error: str = ""

    @property
    def results(self) -> tuple[ToolResult, ToolResult]:
        return self.ours, self.theirs

    @property
    def prepare_ratios(self) -> list[float]:
        """torch-pruning's seconds ÷ structprune's, turn by turn; empty if a tool stopped before."""
        ours, theirs = self.ours.prepare_s, self.theirs.prepare_s
        return [b / a for a, b in zip(ours, theirs, strict=True)] if len(ours) == len(theirs) else []

    def to_data(self) -> Record:
        return {
            "model": self.model,
            "input": list(self.input),
            "dense": {"macs": self.macs, "params": self.params},
            "results": [vars(result) for result in self.results],
            "prepare_ratios": self.prepare_ratios,
            "benchmark": self.benchmark.to_data() if self.benchmark else None,
            "benchmark_error": self.benchmark_error,
        }
