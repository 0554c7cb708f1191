"""Code around the layers: heads that only training runs, sizes read from the input or a configuration, branches on
values, writes into parts of a tensor."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Auxiliary(nn.Module):
    """A head that runs in training only and reads the same channels (GoogLeNet); its mean scales nothing away."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(width, 8, 3, padding=1), nn.Conv2d(8, out, 1)
        self.auxiliary, self.scale = nn.Conv2d(8, 4, 1), nn.Linear(4, out)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.enter(x))
        x = self.leave(hidden)
        if self.training:
            x = x + self.scale(self.auxiliary(hidden).mean((2, 3)))[:, :, None, None]
        return x


class Sized(nn.Module):
    """Down, up to the size that the input has, and cropped after padding to a multiple of four."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 8, 3, 2, 1), nn.Conv2d(8, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = F.pad(x, (0, (4 - w % 4) % 4, 0, (4 - h % 4) % 4))
        x = F.interpolate(self.up(F.relu(self.down(x))), size=x.shape[2:], mode="nearest")
        return x[:, :, :h, :w]


class Configured(nn.Module):
    """Widths that stand in a configuration: an object, or a dict."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.config = {"hidden": 8} if width % 2 else SimpleNamespace(hidden=8)
        self.enter, self.leave = nn.Linear(width, 8), nn.Linear(8, out)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.config["hidden"] if isinstance(self.config, dict) else self.config.hidden
        b, _, h, w = x.shape
        y = F.relu(self.enter(x.permute(0, 2, 3, 1))).reshape(b, h * w, hidden)
        return self.leave(y).transpose(1, 2).reshape(b, -1, h, w)


class OwnDepthwise(nn.Module):
    """A depthwise convolution of one's own: a parameter, and as many groups as an attribute says."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.channels = nn.Conv2d(width, out, 1), out
        self.weight = nn.Parameter(torch.randn(out, 1, 3, 3) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.enter(x), self.weight, padding=1, groups=self.channels)


class Filled(nn.Module):
    """Two layers write their halves of an output that was made before."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.half, self.rest = out // 2, out - out // 2
        self.a, self.b = nn.Conv2d(width, self.half, 1), nn.Conv2d(width, self.rest, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result = x.new_zeros((x.shape[0], self.half + self.rest, *x.shape[2:]))
        result[:, : self.half] = self.a(x)
        result[:, self.half :] = self.b(x).tanh()
        return result


class Mapped(nn.Module):
    """A Linear whose outputs become a small map, which a convolution reads (a generator's first step)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.code = nn.Conv2d(width, out, 1), nn.Linear(width, 6 * 9)
        self.map, self.leave = nn.Unflatten(1, (6, 3, 3)), nn.Conv2d(6, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        small = self.leave(F.relu(self.map(self.code(x.mean((2, 3))))))
        return self.enter(x) * F.interpolate(small, size=x.shape[2:], mode="nearest").tanh()


class Strided(nn.Module):
    """Every other channel, by slices with a step."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(width, 8, 1), nn.Conv2d(4, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(x[:, ::2] * x[:, 1::2].sigmoid())


BLOCKS = (Auxiliary, Sized, Configured, OwnDepthwise, Filled, Mapped, Strided)
