"""A network with gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..calibration import WritableNetwork


@contextmanager
def with_gradients(working: WritableNetwork) -> Iterator[None]:
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
        for parameter, trains in parameters:
            parameter.requires_grad_(trains)
            parameter.grad = None
