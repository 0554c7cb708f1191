"""The independent count of MACs: fvcore's, on the finished networks, and where the plan says something else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..modules import evaluating, plain_transformers, skeleton_copy
from ..ops import Inputs
from ..process_state import silent_logger, silent_warnings
from ..records import Plan

# fvcore's terms that are multiply-adds of weights or matrices; its batch_norm and pooling terms are not.
MAC_OPERATORS = ("conv", "linear", "matmul", "bmm", "addmm", "baddbmm", "einsum")


def _count_same_padding(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """A convolution with padding="same", an op of its own that fvcore does not know."""
    from fvcore.nn.jit_handles import conv_flop_count, get_shape

    return Counter({"conv": conv_flop_count(get_shape(inputs[0]), get_shape(inputs[1]), get_shape(outputs[0]))})


class _Positional(nn.Module):
    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Any) -> Any:
        return self.model(**dict(zip(self.names, values, strict=True)))


def count_macs(model: nn.Module, example_inputs: Any) -> dict[str, int]:
    """Counts the MACs of one forward pass, by fvcore and independently of the plan.

    Args:
        model: The network, which is left as it was.
        example_inputs: As `trace` takes them.

    Returns:
        MACs by operator: `{"conv": ..., "linear": ...}`, without those that have none.

    Raises:
        Exception: Whatever fvcore raises for a model that torch.jit.trace can't follow.
    """
    from fvcore.nn import FlopCountAnalysis  # which only counting needs, and not what reads a report

    inputs = Inputs.of(example_inputs).beside(model)
    copy: nn.Module = skeleton_copy(model)
    arguments: tuple[Any, ...] = inputs.args
    if inputs.kwargs:
        copy, arguments = _Positional(copy, list(inputs.kwargs)), tuple(inputs.kwargs.values())
    with evaluating(copy), plain_transformers(), silent_warnings(), silent_logger("fvcore"):
        analysis = FlopCountAnalysis(copy, arguments)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle("aten::_convolution_mode", _count_same_padding)
        counted = analysis.by_operator()
    return {name: int(counted[name]) for name in MAC_OPERATORS if counted.get(name)}


@dataclass(frozen=True)
class CountedMacs:
    """MACs by operator as fvcore counts them, None where it can't; and where they are not the plan's."""

    dense: dict[str, int] | None
    slim: dict[str, int] | None
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the counts are the plan's."""
        return not self.problems

    def reasons(self) -> list[str]:
        """Lists where the counts are not equal.

        Returns:
            One line each; none where they are.
        """
        return list(self.problems)


def counted_macs(plan: Plan, dense: nn.Module, slim: nn.Module, example: Any) -> CountedMacs:
    """Counts the MACs of both networks by fvcore, and holds them against the plan's.

    Args:
        plan: The plan.
        dense: The dense network.
        slim: What `prune` made of it.
        example: As `trace` takes it.

    Returns:
        fvcore's counts, and where they differ from the plan's.
    """
    counts = {"dense": _macs_or_none(dense, example), "slim": _macs_or_none(slim, example)}
    return CountedMacs(counts["dense"], counts["slim"], tuple(_disagreements(plan, counts)))


def _macs_or_none(model: nn.Module, example: Any) -> dict[str, int] | None:
    try:
        return count_macs(model, example)
    except Exception:  # fvcore counts by torch.jit.trace, which some models do not survive
        return None


def _disagreements(plan: Plan, counts: dict[str, dict[str, int] | None]) -> list[str]:
    problems = []
    for kind in ("dense", "slim"):
        for operator, counted in (counts[kind] or {}).items():
            if operator not in ("conv", "linear", "matmul"):
                continue  # where fvcore counts in its own way
            planned = plan.macs_by_operator[kind].get(operator, 0)
            if planned != counted:
                problems.append(f"{operator} MACs of the {kind} network: {planned} planned, {counted} by fvcore")
    return problems
