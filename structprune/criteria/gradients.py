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
    if labels is None:
        return F.cross_entropy(found[0], found[0].argmax(1), reduction="sum")
    images, classes = found[0].shape
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype is torch.bool)
    if not whole or labels.shape != (images,) or not ((labels >= 0) & (labels < classes)).all():
        raise RecipeError(
            f"the labels are {labels.dtype} of shape {tuple(labels.shape)}, and the network gives {classes} classes "
            f"for {images} images: give one class number an image, from 0 to {classes - 1}"
        )
    return F.cross_entropy(found[0], labels.long(), reduction="sum")


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
