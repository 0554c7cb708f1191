"""Normalisation: over blocks of channels, over all channels, over pixels; scales that are learnt."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Normed(nn.Module):
    """GroupNorm with one group: a statistic over all channels."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, out, 1), nn.GroupNorm(1, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class GroupNormed(nn.Module):
    """GroupNorm with two to four groups."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        groups = 4 if width % 2 else 2
        self.enter, self.norm = nn.Conv2d(width, 16, 1), nn.GroupNorm(groups, 16)
        self.conv, self.last = nn.Conv2d(16, out, 3, padding=1), nn.GroupNorm(1 if out % 2 else 2, out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.last(self.conv(F.relu(self.norm(self.enter(x))))))


class LayerNormed(nn.Module):
    """LayerNorm over the channels of each pixel: permuted to channels last and back."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, out, 3, padding=1), nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class WrittenOut(nn.Module):
    """LayerNorm over channels by its formula, from mean and power."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, padding=1)
        self.weight, self.bias = nn.Parameter(torch.rand(out) + 0.5), nn.Parameter(torch.randn(out) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        return self.weight[:, None, None] * (x - mean) / torch.sqrt(variance + 1e-6) + self.bias[:, None, None]


class RootMeanSquared(nn.Module):
    """RMSNorm over channels, with a residual."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.conv = nn.Conv2d(width, out, 1), nn.Conv2d(out, out, 3, padding=1)
        self.weight = nn.Parameter(torch.rand(1, out, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        normed = x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * self.weight
        return x + self.conv(normed)


class RootMeanSquaredByTorch(nn.Module):
    """PyTorch's own op for it, on channels last, between linear layers."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(width, out), nn.RMSNorm(out, eps=1e-6), nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x.permute(0, 2, 3, 1))
        return (x + self.fc2(self.norm(x))).permute(0, 3, 1, 2)


class InstanceNormed(nn.Module):
    """Statistics over pixels, each channel for itself."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, out, 3, padding=1), nn.InstanceNorm2d(out, affine=width % 2 == 0)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class UnitLength(nn.Module):
    """Each pixel's channels divided by their L2 norm."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(width, 8, 3, padding=1), nn.Conv2d(8, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.normalize(self.conv(x), dim=1))


class ChannelSoftmax(nn.Module):
    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, out, 1), nn.Conv2d(width, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) * self.b(x).softmax(1)


class LayerScaled(nn.Module):
    """A residual whose branch has a learnt scale for each channel, without a norm."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.depthwise = nn.Conv2d(width, out, 1), nn.Conv2d(out, out, 3, padding=1, groups=out)
        self.fc1, self.fc2 = nn.Linear(out, 2 * out), nn.Linear(2 * out, out)
        self.gamma = nn.Parameter(torch.rand(out) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y = self.fc2(F.gelu(self.fc1(self.depthwise(x).permute(0, 2, 3, 1)))) * self.gamma
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Depthwise convolution, LayerNorm, MLP with global response normalisation, in a residual."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.depthwise = nn.Conv2d(width, out, 1), nn.Conv2d(out, out, 3, padding=1, groups=out)
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(out), nn.Linear(out, 2 * out), nn.Linear(2 * out, out)
        self.weight, self.bias = nn.Parameter(torch.rand(2 * out)), nn.Parameter(torch.randn(2 * out) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y = F.gelu(self.fc1(self.norm(self.depthwise(x).permute(0, 2, 3, 1))))
        length = y.norm(p=2, dim=(1, 2), keepdim=True)
        response = length / (length.mean(dim=-1, keepdim=True) + 1e-6)
        y = y + torch.addcmul(self.bias.view(1, 1, 1, -1), self.weight.view(1, 1, 1, -1), y * response)
        return x + self.fc2(y).permute(0, 3, 1, 2)


BLOCKS = (
    Normed, GroupNormed, LayerNormed, WrittenOut, RootMeanSquared, RootMeanSquaredByTorch, InstanceNormed,
    UnitLength, ChannelSoftmax, LayerScaled, ConvNeXt,
)  # fmt: skip
