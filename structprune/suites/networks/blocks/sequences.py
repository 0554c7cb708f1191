"""Recurrent layers over rows of pixels, contractions spelt by einsum, linear attention, rotated pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .tokens import to_pixels, to_tokens


def _rows(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B·H, W, C)."""
    return x.permute(0, 2, 3, 1).flatten(0, 1)


def _image(rows: Tensor, like: Tensor) -> Tensor:
    """(B·H, W, C) to (B, C, H, W)."""
    b, _, h, w = like.shape
    return rows.reshape(b, h, w, -1).permute(0, 3, 1, 2)


class Recurrent(nn.Module):
    """An LSTM, GRU or plain recurrent layer along the rows; in one direction or both, one layer or two."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        kind = (nn.LSTM, nn.GRU, nn.RNN)[(width + out) % 3]
        layers, both = 1 + width // 2 % 2, out % 2 == 1
        self.rnn = kind(width, 6, num_layers=layers, bidirectional=both, batch_first=True)
        self.leave = nn.Linear(12 if both else 6, out)

    def forward(self, x: Tensor) -> Tensor:
        return _image(self.leave(self.rnn(_rows(x))[0]), x)


class LastState(nn.Module):
    """The last state of an LSTM over the pixels gates the channels."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.rnn = nn.Conv2d(width, out, 1), nn.LSTM(out, 5, batch_first=True)
        self.gate = nn.Linear(5, out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        state = self.rnn(to_tokens(F.avg_pool2d(x, 4)))[1][0][-1]
        return x * torch.sigmoid(self.gate(state))[:, :, None, None]


class GatedState(nn.Module):
    """A convolutional cell whose first state is zeros of its own width, run twice (ConvLSTM)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.hidden = out
        self.gates = nn.Conv2d(width + out, 4 * out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], self.hidden, *x.shape[2:], dtype=x.dtype, device=x.device)
        for _ in range(2):
            i, f, o, g = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


class Einsum(nn.Module):
    """A matrix of its own over the channels, and products over pixels, spelt by einsum."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, out, 1)
        self.mix = nn.Parameter(torch.randn(out, out) / out**0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        mixed = torch.einsum("bchw,cd->bdhw", x, self.mix)
        energy = torch.einsum("bchw,bchw->bc", x, mixed) / (x.shape[2] * x.shape[3])
        return mixed + x * energy.tanh()[:, :, None, None]


class Similar(nn.Module):
    """Products over channels whose values at a zero weight are not zero (sigmoid): a statistic, not an exact cut."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, 6, 1), nn.Conv2d(width, 6, 1)
        self.enter = nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        near = torch.einsum("bchw,bchw->bhw", self.a(x).sigmoid(), self.b(x).sigmoid())
        return self.enter(x) * near[:, None].tanh()


class LinearAttention(nn.Module):
    """softmax-free attention with the feature map elu + 1 (Katharopoulos 2020)."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(width, 6), nn.Linear(width, 6), nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        q, k, v = F.elu(self.q(tokens)) + 1, F.elu(self.k(tokens)) + 1, self.v(tokens)
        state = torch.einsum("bnk,bnv->bkv", k, v)
        norm = torch.einsum("bnk,bk->bn", q, k.sum(1))
        return to_pixels(torch.einsum("bnk,bkv->bnv", q, state) / norm[..., None], x)


class Rotary(nn.Module):
    """Attention whose queries and keys are rotated in pairs: of neighbours, or of halves."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.heads, self.head_dim, self.neighbours = 2, 4, width % 2 == 0
        self.qkv, self.leave = nn.Linear(width, 3 * 8), nn.Linear(8, out)

    def _turned(self, x: Tensor) -> Tensor:
        if self.neighbours:
            return torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([-b, a], -1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(F.avg_pool2d(x, 2))
        b, n, _ = tokens.shape
        q, k, v = self.qkv(tokens).reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        angle = torch.arange(n, device=x.device, dtype=x.dtype)[:, None] * 0.1
        q, k = (y * angle.cos() + self._turned(y) * angle.sin() for y in (q, k))
        y = ((q @ k.transpose(-2, -1)) * 0.5).softmax(-1) @ v
        pooled = self.leave(y.transpose(1, 2).reshape(b, n, -1)).transpose(1, 2)
        small = pooled.reshape(b, -1, x.shape[2] // 2, x.shape[3] // 2)
        return F.interpolate(small, scale_factor=2.0)


BLOCKS = (Recurrent, LastState, GatedState, Einsum, Similar, LinearAttention, Rotary)
