"""The loss whose gradients criteria see, and a network with gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..calibration import Working
from ..errors import RecipeError
from ..graph.capture import outputs


def loss(made: Any, labels: Tensor | None) -> Tensor:
    """Cross-entropy, summed over the batch, on labels or else on the classes that the network itself finds most likely.

    Raises RecipeError where the network does not return one tensor (images, classes)."""
    found = outputs(made)
    if len(found) != 1 or found[0].dim() != 2:
        shapes = ", ".join(str(tuple(x.shape)) for x in found)
        raise RecipeError(
            f"gradients need class scores of shape (images, classes), and this network returns {shapes}: choose a "
            "criterion without gradients (see `structprune criteria`)"
        )
    return F.cross_entropy(found[0], found[0].argmax(1) if labels is None else labels, reduction="sum")


@contextmanager
def with_gradients(working: Working) -> Iterator[None]:
    """Evaluation mode, gradients for every floating-point parameter."""
    module = working.module
    modes = [(m, m.training) for m in module.modules()]
    parameters = [(p, p.requires_grad) for p in module.parameters()]
    module.eval()
    try:
        for parameter, _ in parameters:
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.enable_grad():
            yield
    finally:
        for m, mode in modes:
            m.training = mode
        for parameter, wanted in parameters:
            parameter.requires_grad_(wanted)
            parameter.grad = None
