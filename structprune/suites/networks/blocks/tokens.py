"""Pixels as tokens: attention in several spellings, MLPs, mixing of tokens, a class token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOKENS = 144  # 12 × 12 pixels


def to_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def to_pixels(tokens: Tensor, like: Tensor) -> Tensor:
    b, _, c = tokens.shape
    return tokens.transpose(1, 2).reshape(b, c, *like.shape[2:])


class _Attention(nn.Module):
    """timm's: one layer for q, k and v; the merged width is an attribute, or -1."""

    def __init__(self, dim: int, heads: int, head_dim: int, inferred: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, head_dim, heads * head_dim
        self.scale, self.inferred = head_dim**-0.5, inferred
        self.qkv, self.proj = nn.Linear(dim, 3 * self.attn_dim, bias=not inferred), nn.Linear(self.attn_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        attention = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        x = (attention @ v).transpose(1, 2)
        return self.proj(x.reshape(b, n, -1) if self.inferred else x.reshape(b, n, self.attn_dim))


class Attention(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.attention = nn.Conv2d(width, out, 1), _Attention(out, 2, 4, inferred=width % 2 == 0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return x + to_pixels(self.attention(to_tokens(x)), x)


class SeparateAttention(nn.Module):
    """Layers of their own for q, k and v, keys and values at a lower resolution, and PyTorch's kernel."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.num_heads, dim = 3, 9 if width % 2 else 12
        self.q, self.k, self.v = nn.Linear(width, dim), nn.Linear(width, dim), nn.Linear(width, 2 * dim)
        self.proj = nn.Linear(2 * dim, out)

    def _heads(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        return x.view(b, n, self.num_heads, c // self.num_heads).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens, few = to_tokens(x), to_tokens(F.avg_pool2d(x, 2))
        q, k, v = self._heads(self.q(tokens)), self._heads(self.k(few)), self._heads(self.v(few))
        y = F.scaled_dot_product_attention(q, k, v)
        return to_pixels(self.proj(y.transpose(1, 2).flatten(2)), x)


class TorchAttention(nn.Module):
    """`nn.MultiheadAttention`: weights of q, k and v in one parameter."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        dim = 8 if width % 2 else 6
        self.enter, self.leave = nn.Conv2d(width, dim, 1), nn.Conv2d(dim, out, 1)
        self.attention = nn.MultiheadAttention(dim, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        tokens = to_tokens(x)
        y = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.leave(to_pixels(tokens + y, x))


class CrossCovariance(nn.Module):
    """Attention between channels: q and k of unit length along the tokens, a softmax over the channels of a head."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.num_heads, self.dim = 2, 8
        self.qkv, self.proj = nn.Linear(width, 3 * self.dim), nn.Linear(self.dim, out)
        self.temperature = nn.Parameter(torch.rand(2, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        b, n, _ = tokens.shape
        q, k, v = self.qkv(tokens).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 4, 1).unbind(0)
        attention = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)) * self.temperature
        y = (attention.softmax(dim=-1) @ v).permute(0, 3, 1, 2).reshape(b, n, self.dim)
        return to_pixels(self.proj(y), x)


class Windowed(nn.Module):
    """Attention of one head within windows of 4 × 4 pixels, with a table of biases for the positions."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.qk, self.v, self.leave = nn.Linear(width, 8), nn.Linear(width, out), nn.Linear(out, out)
        self.table = nn.Parameter(torch.randn(16, 16) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        windows = x.view(b, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        q, k = self.qk(windows).chunk(2, dim=-1)
        attention = (torch.matmul(q, k.transpose(1, 2)) * 0.5 + self.table).softmax(-1)
        y = self.leave(attention @ self.v(windows))
        return y.view(b, h // 4, w // 4, 4, 4, -1).permute(0, 5, 1, 3, 2, 4).reshape(b, -1, h, w)


class TokenMlp(nn.Module):
    """An MLP with GELU on tokens; linear layers on the last axis."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, out))

    def forward(self, x: Tensor) -> Tensor:
        return to_pixels(self.mlp(to_tokens(x)), x)


class SwiGlu(nn.Module):
    """One layer makes the gate and the values (packed), or one each."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.packed = width % 2 == 0
        self.fc1, self.fc2 = nn.Linear(width, 16 if self.packed else 7), nn.Linear(8 if self.packed else 7, out)
        self.gate = None if self.packed else nn.Linear(width, 7)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        if self.gate is None:
            gate, values = self.fc1(tokens).chunk(2, dim=-1)
        else:
            gate, values = self.gate(tokens), self.fc1(tokens)
        return to_pixels(self.fc2(F.silu(gate) * values), x)


class TokenMixing(nn.Module):
    """A linear layer across the tokens, for each channel (MLP-Mixer), at 4 × 4 pixels."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.enter, self.fc1, self.fc2 = nn.Conv2d(width, out, 1), nn.Linear(16, 6), nn.Linear(6, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        tokens = F.avg_pool2d(x, 3).flatten(2)
        mixed = tokens + self.fc2(F.gelu(self.fc1(tokens)))
        return x * F.interpolate(mixed.unflatten(2, (4, 4)), scale_factor=3.0)


class ClassToken(nn.Module):
    """A class token before the tokens, a position embedding on all, and a transformer block with LayerNorm."""

    statistic = True

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(width, out, 1)
        self.token = nn.Parameter(torch.randn(1, 1, out) * 0.5)
        self.positions = nn.Parameter(torch.randn(1, TOKENS + 1, out) * 0.5)
        self.norm1, self.attention = nn.LayerNorm(out), _Attention(out, 2, 3, inferred=out % 4 == 0)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(out), nn.Linear(out, 2 * out), nn.Linear(2 * out, out)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(self.embed(x))
        tokens = torch.cat((self.token.expand(tokens.shape[0], -1, -1), tokens), dim=1) + self.positions
        tokens = tokens + self.attention(self.norm1(tokens))
        tokens = tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
        return to_pixels(tokens[:, 1:] * tokens[:, :1].sigmoid(), x)


BLOCKS = (
    Attention, SeparateAttention, TorchAttention, CrossCovariance, Windowed, TokenMlp, SwiGlu, TokenMixing, ClassToken,
)  # fmt: skip
