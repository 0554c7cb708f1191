"""Random small networks for the algebra: a list of block names and widths, built into an `nn.Module`."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random_blocks import BLOCKS

HEADS = ("pool", "flatten", "view", "number")
WIDTHS = (4, 6, 8, 10, 12)  # most are even, as widths are; odd ones come in between
SIZE = 12  # of the input: blocks count on 12 × 12 pixels


class RandomNet(nn.Module):
    def __init__(self, blocks: list[tuple[str, int]], head: str) -> None:
        super().__init__()
        layers, width = [], 3
        for name, out in blocks:
            layers.append(BLOCKS[name](width, out))
            width = out
        self.blocks, self.head = nn.ModuleList(layers), head
        self.fc1 = nn.Linear(width * 16 if head != "pool" else width, 10)
        self.fc2 = nn.Linear(10, 4)
        self.flat = self.fc1.in_features  # a number in the code, where `view` reads a width that follows

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        if self.head == "pool":
            x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        else:
            x = F.avg_pool2d(x, 3)  # a flexible size can not always be exported
            if self.head == "flatten":
                x = x.flatten(1)
            else:
                x = x.contiguous().view(-1, self.fc1.in_features if self.head == "view" else self.flat)
        return self.fc2(F.relu(self.fc1(x)))


@dataclass(frozen=True)
class Case:
    """A network and a plan for it: the seed decides weights, input, scores and (its parity) the allocation; every
    fourth seed has the graph form, the others the module form.

    `ratio` is the share of the MACs that may stay, or the nearest that can be reached.
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
        """From `[["Shuffled", 8], ...] pool`; raises ValueError with the reason if it is no network."""
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
    def form(self) -> str:
        return "graph" if self.seed % 4 == 3 else "module"

    @property
    def statistic(self) -> bool:
        """Whether a block computes a statistic over its channels (see `tests.random_blocks`)."""
        return any(getattr(BLOCKS[name], "statistic", False) for name, _ in self.blocks)

    def build(self) -> tuple[RandomNet, Tensor]:
        """The network in evaluation mode, and one sample."""
        torch.manual_seed(self.seed)
        return RandomNet(list(self.blocks), self.head).eval(), torch.randn(1, 3, SIZE, SIZE)


def cases() -> st.SearchStrategy[Case]:
    width = st.one_of(st.sampled_from(WIDTHS), st.integers(4, 12))
    blocks = st.lists(st.tuples(st.sampled_from(sorted(BLOCKS)), width), min_size=1, max_size=5).map(tuple)
    return st.builds(Case, blocks, st.sampled_from(HEADS), st.integers(0, 1000), st.floats(0.2, 0.9))
