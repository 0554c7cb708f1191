"""A user's folder: a network of two files. Each has names of its own, as modules stay imported."""

from __future__ import annotations

import itertools
from pathlib import Path

_numbers = itertools.count()

LAYERS = """
from torch import nn

class Block(nn.Module):
    def __init__(self, into, out):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()
"""
NET = """
from torch import nn
from {layers} import Block

class Net(nn.Module):
    def __init__(self, num_classes=10, width=8, channels=1):
        super().__init__()
        self.a, self.b, self.head = Block(channels, width), Block(width, width), nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.b(self.a(x)).mean((2, 3)))

def small():
    return Net(width=4)
"""


def write_network(folder: Path, text: str = NET) -> Path:
    """`netN.py` and its sibling `layersN.py` in a folder, N a number that no other test has; the path of the former."""
    number = next(_numbers)
    folder.mkdir(exist_ok=True, parents=True)
    (folder / f"own_layers{number}.py").write_text(LAYERS)
    path = folder / f"own_net{number}.py"
    path.write_text(text.format(layers=f"own_layers{number}"))
    return path
