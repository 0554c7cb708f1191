"""Gates: channels multiplied by values computed from other channels, pixels or means."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Inverted(nn.Module):
    """Expansion, depthwise convolution, squeeze-excite gate, projection."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        wide = 2 * width
        self.expand, self.bn1 = nn.Conv2d(width, wide, 1), nn.BatchNorm2d(wide)
        self.depthwise, self.bn2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide), nn.BatchNorm2d(wide)
        self.squeeze, self.excite = nn.Conv2d(wide, 4, 1), nn.Conv2d(4, wide, 1)
        self.project = nn.Conv2d(wide, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh_(self.bn1(self.expand(x)), 0, 6)
        x = F.silu(self.bn2(self.depthwise(x)))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.project(x)


class LinearExcite(nn.Module):
    """Squeeze and excite by linear layers and views, in a residual."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, padding=1)
        self.fc = nn.Sequential(nn.Linear(out, 4, bias=False), nn.ReLU(), nn.Linear(4, out, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        b, c = x.shape[:2]
        gate = self.fc(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1)
        return x + x * gate.expand_as(x)


class Attended(nn.Module):
    """A gate from the mean and the maximum of each channel through one shared pair of layers (CBAM)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, padding=1)
        self.fc1, self.fc2 = nn.Conv2d(out, 4, 1), nn.Conv2d(4, out, 1)

    def _weigh(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        gate = self._weigh(x.mean((2, 3), keepdim=True)) + self._weigh(x.amax((2, 3), keepdim=True))
        return x * gate.sigmoid()


class SpatiallyAttended(nn.Module):
    """A gate for each pixel from the mean and the maximum over the channels (CBAM)."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(width, out, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        statistics = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.gate(statistics).sigmoid()


class AlongChannels(nn.Module):
    """A gate by a convolution along the channels (ECA): a channel's neighbours matter."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.conv = nn.Conv2d(width, out, 1), nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        gate = self.conv(x.mean((2, 3)).view(x.shape[0], 1, -1)).view(x.shape[0], -1, 1, 1)
        return x * gate.sigmoid().expand_as(x)


class Glu(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(width, 2 * out, 3, padding=1), nn.BatchNorm2d(2 * out)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.bn(self.conv(x)), dim=1)


class Scaled(nn.Module):
    """A learnt scale for each channel, and a gate of one channel spread over all."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.spread = nn.Conv2d(width, out, 1), nn.Conv2d(width, 1, 3, padding=1)
        self.gamma = nn.Parameter(torch.rand(out, 1, 1) + 0.5)
        self.register_buffer("shift", torch.rand(1, out, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) * self.gamma + self.shift) * torch.sigmoid(self.spread(x))


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


BLOCKS = (Inverted, LinearExcite, Attended, SpatiallyAttended, AlongChannels, Glu, Scaled, Gated)
