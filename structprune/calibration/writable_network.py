"""A network while its weights are changed: its tensors by key, and where an offset of a layer's output can go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from ..graph.expectation import Expectations, Expected
from ..graph.layers import Layer, Norm, find_layers
from ..memory_limits import LIMIT
from ..modules import own_copy, plain_attention, plain_parallel, skeleton_copy, tensors
from ..ops import Captured, Inputs, capture
from .batches import Batch
from .sweep import Sweep


@dataclass
class WritableNetwork:
    """A copy of a network whose tensors can be written to: `module` runs as it was recorded."""

    result: nn.Module
    module: nn.Module
    state: dict[str, Tensor]
    recording: Captured
    layers: list[Layer]
    norms: list[Norm]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: nn.Module, example: Inputs, recording: Captured | None = None) -> WritableNetwork:
        """Copies a network so that its tensors can be written to between calls.

        Args:
            model: the network, which stays as it is
            example: inputs of one forward pass
            recording: the forward pass on `example`, if it was recorded before

        Returns:
            The copy, with the layers of its forward pass.
        """
        result = own_copy(model)
        module = skeleton_copy(result, buffers=False)
        plain_attention(module)
        plain_parallel(module)
        recording = recording or capture(result, example)
        return cls(result, module, tensors(result), recording, *find_layers(recording))

    def sweep(self, batches: Sequence[Batch], memory: float = LIMIT) -> Sweep:
        """Begins a pass over batches that stops at one call after the other.

        Args:
            batches: the calibration data
            memory: bytes that what is kept between calls may take

        Returns:
            The pass, before its first call.
        """
        return Sweep(self.module, self.recording, [batch.inputs for batch in batches], memory)

    @cached_property
    def expectations(self) -> Expectations:
        return Expectations(self.recording, self.state)

    def write(self, key: str, value: Tensor) -> None:
        """Writes a parameter or buffer in place.

        Args:
            key: its name in the network
            value: what it becomes, in any shape of as many numbers
        """
        with torch.no_grad():
            self.state[key].copy_(value.reshape(self.state[key].shape))

    @cached_property
    def _writers(self) -> Counter[str]:
        """How many calls an offset of a layer would reach, by the key that it would be written to."""
        own: Counter[str] = Counter(layer.bias for layer in self.layers if layer.bias)
        return own + Counter(norm.mean for norm in self.norms)

    def can_shift(self, layer: Layer) -> bool:
        """Tells whether a layer has an offset of its own.

        Args:
            layer: one of the network's

        Returns:
            Whether it has a bias, or a BatchNorm after it, that no other call shares.
        """
        key = layer.bias or (layer.norm.mean if layer.norm else None)
        return key is not None and self._writers[key] == 1

    def expected(self, layer: Layer) -> Expected | None:
        """Tells what BatchNorms say of the channels that enter a layer.

        Args:
            layer: one of the network's

        Returns:
            Their means and variances; None where nothing is known of them.
        """
        if layer.kind == "linear" and layer.recorded_call.x.dim() != 2:
            return None
        return self.expectations.of(layer.input)

    def shift(self, layer: Layer, offset: Tensor) -> None:
        """Adds an offset to what a layer makes: to its bias, or to the BatchNorm after it, whose mean goes down.

        Args:
            layer: one that `can_shift`
            offset: shape (output channels,)
        """
        if layer.bias is not None:
            self.write(layer.bias, self.state[layer.bias] + offset)
        elif layer.norm is not None:
            self.write(layer.norm.mean, self.state[layer.norm.mean] - offset)
