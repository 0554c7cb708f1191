"""Convolutions of every kind, shortcuts, sums of branches and shared layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Plain(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Residual(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = Plain(width, out), nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b(self.a(x)) + self.shortcut(x))


class Branches(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, out - 3, 1), nn.Conv2d(width, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(out + width)
        self.mix = nn.Conv2d(out + width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(F.relu(self.bn(torch.cat([self.a(x), x, self.b(x)], 1))))


class Dense(nn.Module):
    """Two dense connections: the concatenation itself goes on, so later layers read it at offsets."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, out - 3, 1)
        self.a, self.b = nn.Conv2d(out - 3, 2, 3, padding=1), nn.Conv2d(out - 1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = torch.cat([x, self.a(F.relu(x))], 1)
        return torch.cat([self.b(F.relu(x)), x], 1)


class Grouped(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, 12, 1)
        self.grouped = nn.Conv2d(12, 24, 3, padding=1, groups=2 if width % 2 else 6)
        self.leave = nn.Conv2d(24, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.relu(self.grouped(F.relu(self.enter(x)))))


class FewGroups(nn.Module):
    """Two blocks that read and make the channels of the neighbours themselves (one where a width is odd)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        groups = 1 if width % 2 or out % 2 else 2
        self.conv, self.bn = nn.Conv2d(width, out, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class ManyGroups(nn.Module):
    """A depthwise convolution with two filters a channel, then blocks of two channels, in a residual."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.multiply = nn.Conv2d(width, 2 * width, 3, padding=1, groups=width)
        self.pairs, self.bn = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=width), nn.BatchNorm2d(2 * width)
        self.leave = nn.Conv2d(2 * width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.multiply(x)
        return self.leave(x + F.silu(self.bn(self.pairs(x))))


class GroupedTransposed(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        groups = 2 if width % 2 else 4
        self.enter, self.up = nn.Conv2d(width, 8, 1), nn.ConvTranspose2d(8, 12, 2, stride=2, groups=groups)
        self.leave = nn.Conv2d(12, out, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.leaky_relu(self.up(F.relu(self.enter(x)))))


class Shared(nn.Module):
    """One convolution called twice."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.twice = nn.Conv2d(width, out, 1), nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(F.relu(self.twice(self.enter(x))))


class SharedBranches(nn.Module):
    """One convolution and one norm called on two resolutions of one tensor, as a detector's head is."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.head, self.bn = nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out)
        self.mix = nn.Conv2d(2 * out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = (F.relu(self.bn(self.head(level))) for level in (x, F.avg_pool2d(x, 2)))
        return self.mix(torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], 1)) + fine


class Resampled(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, out, 3, padding=1), nn.ConvTranspose2d(out, out, 2, stride=2)
        self.act = nn.PReLU(out)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(self.act(self.down(F.pad(x, (1, 0, 0, 1)))), 2)
        y = self.up(y) + F.interpolate(y, scale_factor=2)
        return F.dropout(y, 0.1, self.training)


class ZeroPadded(nn.Module):
    """A shortcut without weights: zeros for the channels that are new, a slice where there are fewer."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = Plain(width, out), nn.Conv2d(out, out, 1)
        self.extra, self.out = out - width, out

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x, (0, 0, 0, 0, 0, self.extra)) if self.extra >= 0 else x[:, : self.out]
        return F.relu(self.b(self.a(x)) + shortcut)


class ScaledStdConv2d(nn.Conv2d):
    """Weights standardised by a BatchNorm over their own filters, as timm's NFNets have it."""

    def __init__(self, width: int, out: int, kernel: int, **kwargs: int) -> None:
        super().__init__(width, out, kernel, **kwargs)
        self.gain = nn.Parameter(torch.rand(out, 1, 1, 1) + 0.5)
        self.scale = self.weight[0].numel() ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1),
            None,
            None,
            weight=(self.gain * self.scale).view(-1),
            training=True,
            momentum=0.0,
            eps=1e-6,
        ).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Standardised(nn.Module):
    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = ScaledStdConv2d(width, out, 3, padding=1), ScaledStdConv2d(out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return x + self.b(F.relu(x)) * 0.2


class OneDimensional(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.line, self.bn = nn.Conv1d(width, out, 5, padding=2), nn.BatchNorm1d(out)
        self.shortcut = nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn(self.line(x.flatten(2))))
        return y.unflatten(2, x.shape[2:]) + self.shortcut(x)


class Einsum(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(out, width) * 0.3), nn.Parameter(torch.randn(out) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,oc->bohw", x, self.weight) + self.bias.view(1, -1, 1, 1)


class Stacked(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(width, out, k, padding=k // 2) for k in (1, 3, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([F.relu(branch(x)) for branch in self.branches], 1).sum(1)


class SelectiveKernel(nn.Module):
    """Branches summed with attention weights, a softmax over the branches for each channel."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(Plain(width, out) for _ in range(2))
        self.reduce, self.select = nn.Conv2d(out, 4, 1), nn.Conv2d(4, 2 * out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([path(x) for path in self.paths], dim=1)
        weights = self.select(F.relu(self.reduce(x.sum(1).mean((2, 3), keepdim=True))))
        b, c, h, w = weights.shape
        return (x * weights.view(b, 2, c // 2, h, w).softmax(1)).sum(1)


class Involution(nn.Module):
    """Kernels computed for each pixel, one for each of `groups` blocks of channels."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.channels, self.groups = out, 1 if out % 2 else 2
        self.group_size = out // self.groups
        self.enter, self.reduce = nn.Conv2d(width, out, 1), Plain(out, 4)
        self.span = nn.Conv2d(4, 9 * self.groups, 1)
        self.unfold = nn.Unfold(3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        b, _, h, w = x.shape
        kernels = self.span(self.reduce(x)).view(b, self.groups, 9, h, w).unsqueeze(2)
        patches = self.unfold(x).view(b, self.groups, self.group_size, 9, h, w)
        return (kernels * patches).sum(3).view(b, self.channels, h, w)


BLOCKS = (
    Plain, Residual, Branches, Dense, Grouped, FewGroups, ManyGroups, GroupedTransposed, Shared, SharedBranches,
    Resampled, ZeroPadded, Standardised, OneDimensional, Einsum, Stacked, SelectiveKernel, Involution,
)  # fmt: skip
