"""The networks of the suite by name: what builds each, and which package it is from. Their weights are random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Example = Any  # what structprune.trace takes as example_inputs
Built = tuple[nn.Module, Example]
NETWORKS: dict[str, Callable[[], Built]] = {}
PACKAGES: dict[str, str] = {}


def network(package: str, name: str) -> Callable[[Callable[[], Built]], Callable[[], Built]]:
    """Registers a function that builds one network; a name that is there already raises ValueError."""

    def register(build: Callable[[], Built]) -> Callable[[], Built]:
        if name in NETWORKS:
            raise ValueError(f"network {name} is registered twice")
        NETWORKS[name], PACKAGES[name] = build, package
        return build

    return register


def image(size: int = 64, channels: int = 3, batch: int = 1) -> Tensor:
    return torch.randn(batch, channels, size, size)


def tokens(length: int = 12, vocabulary: int = 60, batch: int = 1) -> Tensor:
    return torch.randint(0, vocabulary, (batch, length))
