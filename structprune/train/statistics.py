"""BatchNorm statistics of a network in training, taken anew where a method has changed weights after an update."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..calibration import Batch
from ..modules import walk

SAMPLES = 10_000  # which say enough (Wu & Johnson 2021, section 3): an epoch of a large set need not be gone through


def reestimate_statistics(model: nn.Module, batches: Iterable[Batch], samples: int = SAMPLES) -> None:
    """Sets running means and variances to the plain averages over batches, each batch counting as much.

    The network runs as in evaluation (no dropout), but for its BatchNorms, which take the statistics of each batch.
    Modes and momenta are put back at the end. BatchNorms that are not in training mode are frozen, and left alone.

    Args:
        model: in training mode.
        batches: of training data, wherever they are.
        samples: after how many of them it ends.
    """
    norms = [
        module
        for _, module in walk(model)
        if isinstance(module, _BatchNorm) and module.track_running_stats and module.training
    ]
    if not norms:
        return
    modes = [(module, module.training) for _, module in walk(model)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # all batches count alike
    count = 0
    try:
        with torch.no_grad():
            for batch in batches:
                batch.inputs.beside(model).call(model)
                count += batch.images
                if count >= samples:
                    break
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
