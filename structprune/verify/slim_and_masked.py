"""Holds a slim network against the masked dense one in float64: the gate's comparisons that prove an op's rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..ops import Inputs
from ..records import Plan
from .comparison import Comparison
from .masked_reference import masked
from .other_weights import compare_random
from .running import batches_of, compare_finest
from .training_step import compare_training


def compare_slim_with_masked(
    model: nn.Module, slim: nn.Module, plan: Plan, inputs: Any, *, training: bool = False
) -> dict[str, Comparison]:
    """Compares the outputs of a slim network with those of the dense one whose removed channels are masked.

    The numbers are float64 wherever the dense network runs in it. This is a part of what `verify` does, for tests of a
    rule: it needs no file, no ONNX and no real images.

    Args:
        model: The dense network, in evaluation mode.
        slim: What `prune` made of it.
        plan: The plan that `slim` was made by.
        inputs: Example inputs, as `trace` takes them: they are tried as given and at another batch size.
        training: Whether a training step is compared as well.

    Returns:
        The comparisons by what they compare: `own weights` at both batch sizes, `random weights` (or the dense
        network's own, disturbed, where random ones give no finite output), and `a training step`. Each has `passed`,
        `failed` and, in `detail`, the reason; one that is neither passed nor failed could not be made.

    Raises:
        OtherSizeError: A graph form that refuses a batch size by name.
        Exception: Whatever the slim network's forward raises where the dense one runs.
    """
    batches = batches_of(model, Inputs.of(inputs))
    comparisons = {"own weights": Comparison.of(torch.float64), "random weights": Comparison.of(torch.float64)}
    compare_finest(comparisons["own weights"], masked(model, plan), slim, batches)
    compare_random(comparisons["random weights"], model, slim, plan, batches)
    if training:
        step = comparisons["a training step"] = Comparison.of(torch.float64)
        compare_training(step, model, slim, plan, batches, right=comparisons["own weights"].passed)
    return comparisons
