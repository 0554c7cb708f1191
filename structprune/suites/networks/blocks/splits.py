"""Channels split, sliced, shuffled and reshaped, and put together again."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FixedSlice(nn.Module):
    """A slice whose bounds are numbers in the code."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.half = 2 * (out // 2) // 2
        self.conv, self.last = nn.Conv2d(width, 2 * self.half, 1), nn.Conv2d(2 * self.half, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.last(torch.cat([x[:, self.half :], x[:, : self.half]], 1))


def shuffle(x: Tensor) -> Tensor:
    """Channel shuffle in two groups, with sizes from the shape."""
    b, c, h, w = x.shape
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class Shuffled(nn.Module):
    """Channel shuffle whose sizes come from the shape."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, 8, 1), nn.Conv2d(8, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(shuffle(self.a(x)))


class ShuffledByTorch(nn.Module):
    """PyTorch's own op for it, which its exporter does not know."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.shuffle, self.b = nn.Conv2d(width, 9, 1), nn.ChannelShuffle(3), nn.Conv2d(9, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.shuffle(self.a(x)))


class ShuffledByAttribute(nn.Module):
    """A grouped convolution, then channel shuffle whose sizes are attributes; the shuffled channels go on."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.out, self.groups = out, next(g for g in (4, 2, 3, 1) if out % g == 0)
        self.enter, self.conv = nn.Conv2d(width, out, 1), nn.Conv2d(out, out, 3, padding=1, groups=self.groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.enter(x))
        h, w = x.shape[2:]
        x = x.view(-1, self.groups, self.out // self.groups, h, w)
        return x.transpose(1, 2).contiguous().view(-1, self.out, h, w)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2: half of the channels pass, half are worked on, then all are shuffled."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        half = out // 2
        self.enter, self.leave = nn.Conv2d(width, 2 * half, 1), nn.Conv2d(2 * half, out, 1)
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1), nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1, groups=half)
        )

    def forward(self, x: Tensor) -> Tensor:
        passed, worked = self.enter(x).chunk(2, dim=1)
        x = torch.cat((passed, self.branch(worked)), dim=1)
        return self.leave(shuffle(x))


class PixelShuffled(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.shuffle = nn.Conv2d(width, 4 * out, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.relu(self.shuffle(self.conv(x))), 2)


class PixelUnshuffled(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.conv = nn.Conv2d(width, 4, 1), nn.Conv2d(16, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(F.pixel_unshuffle(self.enter(x), 2)), scale_factor=2)


class SpaceToDepth(nn.Module):
    """Pixels to channels and back by views and permutations, and by strided slices."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.inner = nn.Conv2d(width, 3, 1), nn.Conv2d(12, 4 * out, 1)
        self.sliced = width % 2 == 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        b, c, h, w = x.shape
        if self.sliced:
            x = torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
        else:
            x = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(b, 4 * c, h // 2, w // 2)
        x = F.relu(self.inner(x))
        return x.view(b, 2, 2, -1, h // 2, w // 2).permute(0, 3, 4, 1, 5, 2).reshape(b, -1, h, w)


class SplitByAttribute(nn.Module):
    """Unequal parts whose sizes are attributes; one part goes through a convolution (cross-stage partial)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = out // 3, out - out // 3
        self.enter, self.conv = nn.Conv2d(width, out, 1), nn.Conv2d(self.b, self.b, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.enter(x).split([self.a, self.b], 1)
        return torch.cat([F.relu(self.conv(b)), a], 1)


class SplitByNumbers(nn.Module):
    """Unequal parts whose sizes are numbers in the code: one is kept, one squashed, one gates it."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(width, 8, 3, padding=1), nn.Conv2d(6, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, squashed, gate = torch.split(self.enter(x), [4, 2, 2], dim=1)
        first, rest = torch.split(torch.cat([squashed * gate.sigmoid(), kept], 1), [1, 5], dim=1)
        return self.leave(torch.cat([rest, F.relu(first)], 1))


class ThreeChunks(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(width, 3 * out, 1), nn.BatchNorm2d(3 * out)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.bn(self.conv(x)).chunk(3, dim=1)
        return a.tanh() * b.sigmoid() + F.relu(c)


class Unbound(nn.Module):
    """A view as pairs of channels, of which the larger goes on (maxout), beside the unbound pair's difference."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(width, 2 * out, 3, padding=1), out

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        pairs = x.unflatten(1, (2, self.out))
        first, second = pairs.unbind(1)
        return pairs.amax(1) + F.relu(first - second)


class Ghost(nn.Module):
    """Half of the channels made by a cheap convolution from the other half, and a slice to the exact width."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        half = (out + 1) // 2
        self.out, self.primary = out, nn.Sequential(nn.Conv2d(width, half, 1), nn.BatchNorm2d(half), nn.ReLU())
        self.cheap = nn.Sequential(nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half))

    def forward(self, x: Tensor) -> Tensor:
        a = self.primary(x)
        return torch.cat([a, self.cheap(a)], 1)[:, : self.out]


class Res2Net(nn.Module):
    """Slices of equal width, each convolved after the sum with the one before; a residual around."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.width = 3 if out % 2 else 4
        self.enter, self.bn = nn.Conv2d(width, 4 * self.width, 1), nn.BatchNorm2d(4 * self.width)
        self.convs = nn.ModuleList(nn.Conv2d(self.width, self.width, 3, padding=1) for _ in range(3))
        self.leave, self.shortcut = nn.Conv2d(4 * self.width, out, 1), nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(F.relu(self.bn(self.enter(x))), self.width, 1)
        result = [F.relu(self.convs[0](parts[0]))]
        for conv, part in zip(self.convs[1:], parts[1:3], strict=True):
            result.append(F.relu(conv(result[-1] + part)))
        return F.relu(self.leave(torch.cat([*result, parts[3]], 1)) + self.shortcut(x))


BLOCKS = (
    FixedSlice, Shuffled, ShuffledByTorch, ShuffledByAttribute, ShuffleUnit, PixelShuffled, PixelUnshuffled,
    SpaceToDepth, SplitByAttribute, SplitByNumbers, ThreeChunks, Unbound, Ghost, Res2Net,
)  # fmt: skip
