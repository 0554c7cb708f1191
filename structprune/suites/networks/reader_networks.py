"""Networks for the readers of saved ones, and functions and classes that no file may get called."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

called: list[str] = []  # what a file got called


def canary(*args: Any, **kwargs: Any) -> None:
    called.append("a function")


class Canary(nn.Module):
    def __new__(cls, *args: Any) -> Any:
        if args:
            called.append("a class")
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        called.append("__setstate__")


class Held(nn.Module):
    """Holds attributes of many kinds, buffers of both, a weight twice, blocks and a statistic."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.b, self.c, self.d = nn.Conv2d(8, 12, 1, groups=2), nn.Conv2d(12, 8, 1), nn.Conv2d(8, 8, 1)
        self.ln, self.head = nn.LayerNorm(8), nn.Linear(8, 4)
        self.d.weight = nn.Parameter(self.d.weight.detach().clone())
        self.act, self.part = F.relu, partial(F.leaky_relu, negative_slope=0.1)
        self.table = {"a": (1, 2.5, None), 3: [True, {"x"}], "size": torch.Size([1, 2])}
        self.kind, self.window, self.limit = torch.float32, slice(None, 3), float("inf")
        self.first, self.plain = self.a, torch.ones(2)
        self.register_buffer("hidden", torch.arange(3.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.c(self.part(self.b(self.act(self.norm(self.a(x))))))
        return self.head(self.ln(self.d(x).mean((2, 3)))) * self.plain.sum() + self.hidden.sum()


def blocks() -> nn.Module:
    """Layers of torch alone."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(6, 6, 1), nn.GELU()), nn.Conv2d(6, 2, 1)
    )
