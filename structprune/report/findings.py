"""What a run has found about its networks: MACs by an independent count, disagreements, quality."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..data.tensors import Tensors as Data
from ..records import Plan
from ..train import accuracy, agreement
from .counts import count_macs


def macs_or_none(model: nn.Module, example: torch.Tensor) -> dict[str, int] | None:
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


def measured_quality(
    data: Data, dense: torch.Tensor, slim: dict[str, torch.Tensor], random_weights: bool
) -> dict[str, Any]:
    """Accuracy of each stage's logits where there are labels, else agreement with the dense network's and KL."""
    if data.test_labels is not None:
        labels = data.test_labels
        return {
            "metric": "accuracy",
            "images": len(labels),
            "dense": accuracy(dense, labels),
            **{stage: accuracy(logits, labels) for stage, logits in slim.items()},
        }
    measured = {stage: agreement(dense, logits) for stage, logits in slim.items()}
    return {
        "metric": "agreement",
        "images": len(dense),
        "random_weights": random_weights,
        "dense": 1.0,
        **{stage: same for stage, (same, _) in measured.items()},
        "kl": {"dense": 0.0, **{stage: divergence for stage, (_, divergence) in measured.items()}},
    }
