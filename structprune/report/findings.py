"""What a run has found about its networks: MACs by an independent count, and disagreements."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..records import Plan
from .counts import count_macs


def macs_or_none(model: nn.Module, example: Any) -> dict[str, int] | None:
    """fvcore's count, if it can count the model."""
    try:
        return count_macs(model, example)
    except Exception:  # fvcore counts by torch.jit.trace, which some models do not survive
        return None


def macs_disagreements(plan: Plan, counts: dict[str, dict[str, int] | None]) -> list[str]:
    """Where the plan's MACs are not those that fvcore counts."""
    problems = []
    for kind in ("dense", "slim"):
        for operator, counted in (counts[kind] or {}).items():
            if operator not in ("conv", "linear", "matmul"):
                continue  # where fvcore counts in its own way
            planned = plan.macs_by_operator[kind].get(operator, 0)
            if planned != counted:
                problems.append(f"{operator} MACs of the {kind} network: {planned} planned, {counted} by fvcore")
    return problems
