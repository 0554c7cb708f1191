"""A network while its weights are changed: its tensors by key, and where an offset of a layer's output can go."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from ..graph.capture import Captured, Inputs, capture
from ..modules import plain_attention, replace_tensors, skeleton_copy, tensors
from .expectation import Expectations
from .layers import Layer, Norm, find_layers


@dataclass
class Working:
    """A copy of a network whose tensors can be written to: `module` runs as it was recorded in `captured`."""

    result: nn.Module
    module: nn.Module
    state: dict[str, Tensor]
    captured: Captured
    layers: list[Layer]
    norms: list[Norm]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: nn.Module, example: Inputs) -> Working:
        result = skeleton_copy(model)
        replace_tensors(result, {key: tensor.detach().clone() for key, tensor in tensors(model).items()})
        module = skeleton_copy(result, buffers=False)
        plain_attention(module)
        captured = capture(result, example)
        return cls(result, module, tensors(result), captured, *find_layers(captured))

    @cached_property
    def expectations(self) -> Expectations:
        return Expectations(self.captured, self.state)

    def write(self, key: str, value: Tensor) -> None:
        with torch.no_grad():
            self.state[key].copy_(value.reshape(self.state[key].shape))

    def can_shift(self, layer: Layer) -> bool:
        return layer.bias is not None or layer.norm is not None

    def shift(self, layer: Layer, offset: Tensor) -> None:
        """Adds `offset`, one number an output channel, to what a layer makes: to its bias, or to the BatchNorm after
        it, whose running mean goes down by as much."""
        if layer.bias is not None:
            self.write(layer.bias, self.state[layer.bias] + offset)
        elif layer.norm is not None:
            self.write(layer.norm.mean, self.state[layer.norm.mean] - offset)
