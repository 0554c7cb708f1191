"""The layout of weights in memory while they are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def channels_last(*models: nn.Module | None, active: bool) -> Iterator[None]:
    """Keeps the weights of convolutions with their channels last, and as they were laid out by default afterwards.

    What such layers make is laid out alike, whatever enters them.

    Args:
        models: Networks, whose weights keep their values and their identity. None is skipped.
        active: Whether anything is done.
    """
    held = [model for model in models if model is not None and active]
    for model in held:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        for model in held:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
