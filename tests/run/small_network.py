"""The smallest network and recipe that go through all stages, and timings that take no time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor, nn


class Small(nn.Module):
    num_classes = 10

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1, stride=2)
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, self.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.two(self.one(x).relu())).relu().mean((2, 3)))


TRAINING = {"opt": "adamw", "batch_size": 128}
RECIPE: dict[str, Any] = {
    "model": {"source": "tests.run.small_network:Small"},
    "data": {"source": "digits", "image_size": 8},
    "train": {**TRAINING, "epochs": 2, "lr": 0.03},
    "prune": {"criterion": "l1", "budget": {"macs": 0.5}, "align": 1},
    "finetune": {**TRAINING, "epochs": 2, "lr": 0.01},
    "bench": {"seconds": 0.05},
}


@contextmanager
def short_turns() -> Iterator[None]:
    """A turn of a benchmark has few runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("structprune.runtimes.latency"), "ROW", 0.001)
        yield
