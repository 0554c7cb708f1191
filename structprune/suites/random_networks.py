"""Random small networks for the algebra, each known by a seed, or by a text that names its blocks and a seed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..typing import Form
from .as_users import users

_network = users("random_network")
BLOCKS: dict[str, type[nn.Module]] = _network.BLOCKS
NO_ONNX: frozenset[str] = users("blocks").NO_ONNX
HEADS: tuple[str, ...] = _network.HEADS
RandomNet: type[nn.Module] = _network.RandomNet
WIDTHS = (4, 6, 8, 10, 12)  # most are even, as widths are; odd ones come in between
SIZE = 12  # of the input: blocks count on 12 × 12 pixels


@dataclass(frozen=True)
class Case:
    """A network and a plan for it.

    Attributes:
        blocks: The name and the width of each block.
        head: One of `HEADS`.
        seed: Decides weights, input, scores and (its parity) the allocation; every fourth seed has the graph form, the
            others the module form.
        ratio: The share of the MACs that may stay, or the nearest that can be reached.
    """

    blocks: tuple[tuple[str, int], ...]
    head: str
    seed: int
    ratio: float

    @classmethod
    def random(cls, seed: int) -> Case:
        """The network that `seed` stands for: one to five blocks."""
        rng = np.random.default_rng(seed)
        names = rng.choice(sorted(BLOCKS), rng.integers(1, 6))
        widths = [int(rng.choice(WIDTHS) if rng.random() < 0.75 else rng.integers(4, 13)) for _ in names]
        blocks = tuple(zip(names.tolist(), widths, strict=True))
        return cls(blocks, str(rng.choice(HEADS)), seed, round(float(rng.uniform(0.2, 0.9)), 3))

    @classmethod
    def parse(cls, spec: str, seed: int, ratio: float) -> Case:
        """The network that a text describes, as `spec` writes it.

        Args:
            spec: For example `[["Shuffled", 8], ["Plain", 6]] pool`: blocks with their widths, and a head.
            seed: As of the class.
            ratio: As of the class.

        Raises:
            ValueError: The text describes no network, for the reason that it gives.
        """
        text, _, head = spec.strip().rpartition(" ")
        blocks = tuple((str(name), int(width)) for name, width in json.loads(text))
        unknown = [name for name, _ in blocks if name not in BLOCKS]
        if unknown:
            raise ValueError(f"no block is called {unknown[0]!r}; there are {', '.join(sorted(BLOCKS))}")
        if head not in HEADS:
            raise ValueError(f"no head is called {head!r}; there are {', '.join(HEADS)}")
        if not blocks or min(width for _, width in blocks) < 4:
            raise ValueError("give at least one block, each at least 4 wide")
        return cls(blocks, head, seed, ratio)

    @property
    def spec(self) -> str:
        return f"{json.dumps([list(block) for block in self.blocks])} {self.head}"

    @property
    def form(self) -> Form:
        return "graph" if self.seed % 4 == 3 else "module"

    @property
    def statistic(self) -> bool:
        """Whether a block computes a statistic over its channels (see `networks.blocks`)."""
        return any(getattr(BLOCKS[name], "statistic", False) for name, _ in self.blocks)

    def build(self) -> tuple[nn.Module, Tensor]:
        """The network in evaluation mode, and one sample."""
        torch.manual_seed(self.seed)
        return RandomNet(list(self.blocks), self.head).eval(), torch.randn(1, 3, SIZE, SIZE)
