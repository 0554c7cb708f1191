"""Images laid out as a network's convolutions run fastest on a CPU: with the channels of a place next to each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..memory_limits import LIMIT
from ..modules import evaluating
from ..ops import outputs
from ..ops.record import CONVOLUTIONS
from .batches import Batch
from .writable_network import WritableNetwork

COPIES = 1 / 8  # of the memory, for a copy of the images
CLOSE = 1e-3  # of the largest output: how far outputs may differ by rounding


def channels_last(network: WritableNetwork, batches: Sequence[Batch], memory: float = LIMIT) -> list[Batch]:
    """Lays images out with channels last, which what the network makes of them then has too.

    Args:
        network: What runs on them.
        batches: The images.
        memory: Bytes that may be taken: a copy of the images is made where it takes an eighth of them at most.

    Returns:
        The same images in the same batches; as they are where they are not on a CPU, where the network has no
        convolution, does not run on them, or makes something else of the first batch.
    """
    tensors = [x for batch in batches for x in batch.inputs.flat() if isinstance(x, Tensor)]
    is_small = sum(x.numel() * x.element_size() for x in tensors) <= memory * COPIES
    convolves = any(layer.kind in CONVOLUTIONS for layer in network.layers)
    if not is_small or not convolves or any(x.device.type != "cpu" for x in tensors):
        return list(batches)
    if not _alike(_outputs(network, batches[0]), _outputs(network, _laid_out(batches[0]))):
        return list(batches)
    return [_laid_out(batch) for batch in batches]


def _laid_out(batch: Batch) -> Batch:
    def last(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 and x.is_floating_point() else x

    return Batch(batch.inputs.map(last), batch.labels)


def _outputs(network: WritableNetwork, batch: Batch) -> list[Tensor] | None:
    """What the network makes of a batch; None where it does not run on it."""
    try:
        with evaluating(network.module):
            return outputs(batch.inputs.call(network.module))
    except Exception:  # whatever the model's own code raises
        return None


def _alike(expected: list[Tensor] | None, other: list[Tensor] | None) -> bool:
    if expected is None or other is None or [x.shape for x in expected] != [x.shape for x in other]:
        return False
    pairs = [(a.double(), b.double()) for a, b in zip(expected, other, strict=True) if a.numel()]
    return all(bool((a - b).abs().max() <= CLOSE * a.abs().max()) for a, b in pairs)
