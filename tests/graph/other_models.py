"""Small networks of the kinds that people bring along: nothing of timm, nothing registered."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class UNet(nn.Module):
    """Skips that are concatenated, transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = _conv(3, 8), _conv(8, 16), _conv(16, 32)
        self.up2, self.merge2 = nn.ConvTranspose2d(32, 16, 2, 2), _conv(32, 16)
        self.up1, self.merge1 = nn.ConvTranspose2d(16, 8, 2, 2), _conv(16, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        x = self.middle(F.max_pool2d(b, 2))
        x = self.merge2(torch.cat([self.up2(x), b], 1))
        return self.out(self.merge1(torch.cat([self.up1(x), a], 1)))


class Pyramid(nn.Module):
    """A feature pyramid: sums of levels, one head for all, a list of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in ((3, 8), (8, 12), (12, 16)))
        self.lateral = nn.ModuleList(nn.Conv2d(width, 10, 1) for width in (8, 12, 16))
        self.smooth = nn.ModuleList(nn.Conv2d(10, 10, 3, padding=1) for _ in range(3))
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = F.relu(stage(x))
            levels.append(lateral(x))
        for i in (1, 0):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[-2:])
        return [self.head(F.relu(smooth(level))) for smooth, level in zip(self.smooth, levels, strict=True)]


def line() -> nn.Sequential:
    """1-d convolutions, some in groups."""
    return nn.Sequential(
        nn.Conv1d(1, 8, 5, 2, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 16, 3, groups=2), nn.GELU(),
        nn.Conv1d(16, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip


def volume() -> nn.Sequential:
    """3-d convolutions."""
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, bias=False), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 16, 3),
        nn.LeakyReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


class Recurrent(nn.Module):
    """A convolutional network that reads lines of text (CRNN): its last channels enter an LSTM or GRU."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 6, 3, padding=1)
        self.rnn, self.fc = kind(6 * 8, 12, batch_first=True, bidirectional=True), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc(self.rnn(x.permute(0, 3, 1, 2).flatten(2))[0])


class Several(nn.Module):
    """An image, a vector and an optional weight; a dict with a tuple in it."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector = _conv(3, 12), nn.Linear(5, 12)
        self.a, self.b = nn.Linear(12, 10), nn.Linear(10, 2)

    def forward(self, image: Tensor, vector: Tensor, weight: Tensor | None = None) -> dict[str, object]:
        features = self.image(image) * self.vector(vector).sigmoid()[:, :, None, None]
        if weight is not None:
            features = features * weight
        hidden = F.relu(self.a(features.mean((2, 3))))
        return {"class": self.b(hidden), "more": (hidden.mean(), None, 3)}


class Encoder(nn.Module):
    """PyTorch's own encoder layers over a sequence, some of whose places are padding."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=norm_first)
        self.layers, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.layers(x, src_key_padding_mask=padding).mean(1))


class Translator(nn.Module):
    """`nn.Transformer` on tokens, with a causal mask and padding."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(20, 16), nn.Embedding(20, 16)
        self.transformer, self.out = nn.Transformer(16, 4, 1, 1, 32, batch_first=True), nn.Linear(16, 20)

    def forward(self, source: Tensor, target: Tensor, padding: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        x = self.transformer(
            self.source(source),
            self.target(target),
            tgt_mask=causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.out(x)


class Attended(nn.Module):
    """`nn.MultiheadAttention` between convolutions and a layer of its own choice; the weights are an output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.embed = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 16, 1)
        self.attention, self.hidden = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.embed(F.relu(self.conv(x))).flatten(2).transpose(1, 2)
        seen, weights = self.attention(tokens, tokens, tokens)
        return self.head(F.relu(self.hidden(tokens + seen))), weights


class Language(nn.Module):
    """Token and position embeddings, and output weights that are the token embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position, self.norm = nn.Embedding(30, 16), nn.Embedding(10, 16), nn.LayerNorm(16)
        self.wide, self.narrow = nn.Linear(16, 32), nn.Linear(32, 16)
        self.out = nn.Linear(16, 30, bias=False)
        self.out.weight = self.token.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        x = x + self.narrow(F.gelu(self.wide(self.norm(x))))
        return self.out(self.norm(x))


def super_resolution() -> nn.Sequential:
    """Channels become pixels, twice (ESPCN)."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2), nn.Tanh(), nn.Conv2d(12, 32, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2),
    )  # fmt: skip


def gated() -> nn.Sequential:
    """Gated linear units over 1-d convolutions (as in WaveNet and wav2letter)."""
    return nn.Sequential(
        nn.Conv1d(3, 16, 3, padding=1), nn.GLU(1), nn.Conv1d(8, 24, 3, padding=1), nn.GLU(1), nn.Conv1d(12, 4, 1)
    )


class DenselyConnected(nn.Module):
    """Each layer reads all before it, through a ReLU that writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, 4, 3, padding=1, bias=False))
            for width in (8, 12, 16)
        )
        self.norm, self.fc = nn.BatchNorm2d(20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.fc(F.relu_(self.norm(torch.cat(features, 1))).mean((2, 3)))


class Checkpointed(nn.Module):
    """Activations of the inner part are computed again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.enter, self.inner, self.reentrant = nn.Conv2d(3, 8, 1), nn.Sequential(_conv(8, 8), _conv(8, 8)), reentrant
        self.leave = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(checkpoint(self.inner, self.enter(x), use_reentrant=self.reentrant))


class Frozen(nn.Module):
    """A backbone that runs without gradients inside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.mix, self.head = (
            nn.Sequential(_conv(3, 8), _conv(8, 8)),
            nn.Conv2d(8, 8, 1),
            nn.Linear(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.backbone(x)
        return self.head(F.relu(self.mix(x)).mean((2, 3)))
