"""Random small networks for the algebra: a list of block names and widths, built into an `nn.Module`."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width)


class Plain(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(width, out, 3, padding=1, bias=False), _norm(out), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Residual(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = Plain(width, out), nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b(self.a(x)) + self.shortcut(x))


class Inverted(nn.Module):
    """Expansion, depthwise convolution, squeeze-excite gate, projection."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        wide = 2 * width
        self.expand, self.bn1 = nn.Conv2d(width, wide, 1), _norm(wide)
        self.depthwise, self.bn2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide), _norm(wide)
        self.squeeze, self.excite = nn.Conv2d(wide, 4, 1), nn.Conv2d(4, wide, 1)
        self.project = nn.Conv2d(wide, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh_(self.bn1(self.expand(x)), 0, 6)
        x = F.silu(self.bn2(self.depthwise(x)))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.project(x)


class Branches(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, out - 3, 1), nn.Conv2d(width, 3, 3, padding=1)
        self.bn = _norm(out + width)
        self.mix = nn.Conv2d(out + width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(F.relu(self.bn(torch.cat([self.a(x), x, self.b(x)], 1))))


class Gated(nn.Module):
    """Halves of a tensor multiplied: by chunk, or by a slice whose bound follows the width."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 2 * out, 1)
        self.sliced = width % 2 == 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.sliced:
            half = x.shape[1] // 2
            return x[:, :half] * torch.sigmoid(x[:, half:])
        a, b = x.chunk(2, dim=1)
        return a * torch.tanh(b)


class FixedSlice(nn.Module):
    """A slice whose bounds are numbers in the code: a barrier."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.half = 2 * (out // 2) // 2
        self.conv, self.last = nn.Conv2d(width, 2 * self.half, 1), nn.Conv2d(2 * self.half, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.last(torch.cat([x[:, self.half :], x[:, : self.half]], 1))


class Grouped(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, 12, 1)
        self.grouped = nn.Conv2d(12, 24, 3, padding=1, groups=2 if width % 2 else 6)
        self.leave = nn.Conv2d(24, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.relu(self.grouped(F.relu(self.enter(x)))))


class Shuffled(nn.Module):
    """Channel shuffle: splits the channel axis, which is a barrier today."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, 8, 1), nn.Conv2d(8, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, h, w = x.shape
        return self.b(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Normed(nn.Module):
    """A statistic over the channels: a barrier today."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, out, 1), nn.GroupNorm(1, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Shared(nn.Module):
    """One convolution called twice."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.twice = nn.Conv2d(width, out, 1), nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(F.relu(self.twice(self.enter(x))))


class Resampled(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, out, 3, padding=1), nn.ConvTranspose2d(out, out, 2, stride=2)
        self.act = nn.PReLU(out)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(self.act(self.down(F.pad(x, (1, 0, 0, 1)))), 2)
        y = self.up(y) + F.interpolate(y, scale_factor=2)
        return F.dropout(y, 0.1, self.training)


class Scaled(nn.Module):
    """A learnt scale for each channel, and a gate of one channel spread over all."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.spread = nn.Conv2d(width, out, 1), nn.Conv2d(width, 1, 3, padding=1)
        self.gamma = nn.Parameter(torch.rand(out, 1, 1) + 0.5)
        self.register_buffer("shift", torch.rand(1, out, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) * self.gamma + self.shift) * torch.sigmoid(self.spread(x))


BLOCKS: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        Plain, Residual, Inverted, Branches, Gated, FixedSlice, Grouped, Shuffled, Normed, Shared, Resampled, Scaled
    )
}  # fmt: skip


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
            x = F.adaptive_avg_pool2d(x, 4)
            if self.head == "flatten":
                x = x.flatten(1)
            else:
                x = x.view(-1, self.fc1.in_features if self.head == "view" else self.flat)
        return self.fc2(F.relu(self.fc1(x)))


def networks() -> st.SearchStrategy[tuple[list[tuple[str, int]], str]]:
    block = st.tuples(st.sampled_from(sorted(BLOCKS)), st.integers(4, 9))
    return st.tuples(st.lists(block, min_size=1, max_size=5), st.sampled_from(["pool", "flatten", "view", "number"]))
