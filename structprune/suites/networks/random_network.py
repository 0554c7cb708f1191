"""A list of block names and widths, built into a network with a head."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import BLOCKS

HEADS = ("pool", "flatten", "view", "number")


class RandomNet(nn.Module):
    """Blocks one after the other, on 12 × 12 pixels, and two linear layers."""

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
