"""What is written of a gate as JSON. Tolerances and reasons are in docs/report.md.

Enters nothing; leaves the records that `Gate.record` fills in, and that report.json holds.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..json_records import JsonRecord


class Comparison(JsonRecord):
    """Two networks' outputs beside each other."""

    max_abs: float = Field(description="the largest absolute difference")
    max_rel: float = Field(description="the largest difference relative to its own scale")
    tolerance: float = Field(description="the most that `max_rel` may be")
    state: Literal["passed", "failed", "not compared"] = Field(description="what came of it")
    detail: str = Field(description="why it failed, what was not compared, or what the dense network shows as well")
    batches: list[int] = Field(description="the batch sizes that were compared")
    noise: float | None = Field(
        default=None, description="what rounding alone does to the reference, where that had to be measured"
    )
    dense: float | None = Field(
        default=None, description="what the dense network shows against its own ONNX file, likewise"
    )
    passed: bool = Field(description="whether the state is that")


class Weights(JsonRecord):
    """Whose weights the slim network has."""

    trained: bool = Field(description="whether the caller says that it was trained or recovered since the cut")
    differing: int = Field(description="tensors that are not the dense network's at the plan's positions")
    of: int = Field(description="tensors in all")
    detail: str = Field(description="what the comparisons were made with, of a network that was trained since")


class GateOfCut(JsonRecord):
    """The comparisons of one network with the masked dense one."""

    passed: bool = Field(description="whether all that could be compared is equal, and enough was")
    not_compared: list[str] = Field(
        default_factory=list, description="what could not be compared, and why: no part of what `passed` says"
    )
    weights: Weights | None = Field(default=None, description="whose weights slim has")
    masked_vs_slim: Comparison = Field(description="masked dense and slim, in the network's own dtype")
    float64: Comparison = Field(description="the same in float64")
    random_weights: Comparison = Field(description="the same with random weights in both")
    reload: Comparison = Field(description="slim and slim reloaded from disk")
    onnx: Comparison = Field(description="slim and its ONNX file in onnxruntime")
    training: Comparison = Field(description="masked dense and slim, one training step")

    def comparisons(self) -> dict[str, Comparison]:
        """The comparisons by name, in the order in which they are made."""
        return {name: value for name, value in self if isinstance(value, Comparison)}
