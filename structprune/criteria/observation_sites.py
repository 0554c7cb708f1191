"""Where the channels of groups are seen, and what is seen there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..graph.layers import Layer
from ..graph.recorded_calls import CallSite
from .views import Weights


@dataclass
class Site:
    """Where a group's channels are seen: entering a layer that consumes them (then `weight` is the layer's), or leaving
    one that makes them. `call` is one whose result is looked at instead of the layer's input."""

    layer: Layer
    index: Tensor  # (positions of the channel axis, k)
    weight: Weights | None
    call: CallSite | None = None

    @property
    def at(self) -> CallSite:
        return self.call or self.layer.site

    @property
    def key(self) -> tuple[str, int, bool]:
        return (*self.at, self.weight is not None and self.call is None)

    @property
    def axis(self) -> int:
        return self.layer.axis if self.call is None else 1

    def seen(self, args: Sequence[Any], result: Tensor) -> Tensor:
        return self.layer.input_of(args) if self.key[2] else result


@dataclass
class Seen:
    """One batch's tensors at the sites of groups, the same as autograd knows them, and gradients of weights."""

    values: dict[tuple[str, int, bool], Tensor] = field(default_factory=dict)
    live: dict[tuple[str, int, bool], Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)


def by_unit(index: Tensor) -> Tensor | None:
    """For each unit its positions, (units, positions each), if every unit is alone on equally many, more than one."""
    if index.shape[1] != 1 or (index < 0).any():
        return None
    counts = torch.bincount(index[:, 0])
    if counts.min() != counts.max() or counts[0] == 1:
        return None
    return torch.argsort(index[:, 0], stable=True).reshape(len(counts), -1)


def flat(value: Tensor, axis: int) -> Tensor:
    """(images, channels, places) of a layer's input or result."""
    moved = value.movedim(axis, 1) if value.dim() > 1 else value[None]
    return moved.flatten(2) if moved.dim() > 2 else moved.unsqueeze(2)
