"""Classes of networks written after well-known shapes: what a user would write, by torch and torchvision alone."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RetinaHead(nn.Module):
    """RetinaNet without its anchors and boxes: backbone, pyramid and heads."""

    def __init__(self) -> None:
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
        from torchvision.models.detection.retinanet import RetinaNetHead

        super().__init__()
        self.backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
        self.head = RetinaNetHead(256, 3, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.head(list(self.backbone(x).values()))


class Reader(nn.Module):
    """CRNN (Shi 2015): reads a line of text; convolutions, then a recurrent layer in both directions."""

    def __init__(self, kind: type[nn.RNNBase], layers: int = 2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 48, (8, 3), padding=(0, 1)), nn.ReLU(),
        )  # fmt: skip
        self.rnn = kind(48, 32, num_layers=layers, bidirectional=True, batch_first=True)
        self.head = nn.Linear(64, 20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).squeeze(2).transpose(1, 2)
        return self.head(self.rnn(x)[0])


class DeepSpeech(nn.Module):
    """DeepSpeech 2 in small: convolutions over spectrograms, recurrent layers with batch norm between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 8, (11, 5), 2, (5, 2)), nn.BatchNorm2d(8), nn.Hardtanh(0, 20),
            nn.Conv2d(8, 8, (11, 5), (2, 1), (5, 2)), nn.BatchNorm2d(8), nn.Hardtanh(0, 20),
        )  # fmt: skip
        self.first, self.second = nn.RNN(64, 32, batch_first=True), nn.RNN(32, 32, batch_first=True)
        self.norm, self.out = nn.BatchNorm1d(32), nn.Linear(32, 20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(1, 2).transpose(1, 2)
        x = self.norm(self.first(x)[0].transpose(1, 2)).transpose(1, 2)
        return self.out(self.second(x)[0])


class Sentiment(nn.Module):
    """Word embeddings and an LSTM; the last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(60, 16), nn.LSTM(16, 32, 2, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(x))[1][0][-1])


class ConvLSTM(nn.Module):
    """ConvLSTM (Shi 2015): the next frame of a short film."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates, self.out = nn.Conv2d(1 + hidden, 4 * hidden, 3, padding=1), nn.Conv2d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], self.hidden, *x.shape[3:])
        for t in range(x.shape[1]):
            i, f, o, g = self.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.out(h)


class ResidualBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.body(x)


class WaveNet(nn.Module):
    """WaveNet (van den Oord 2016): dilated gated convolutions, residual and skip sums."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, 16, 1)
        self.gates = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=2**i) for i in range(4))
        self.mix = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(4))
        self.skip = nn.ModuleList(nn.Conv1d(16, 24, 1) for _ in range(4))
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(24, 24, 1), nn.ReLU(), nn.Conv1d(24, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.enter(x), None
        for i, (gate, mix, skip) in enumerate(zip(self.gates, self.mix, self.skip, strict=True)):
            a, b = gate(F.pad(x, (2**i, 0))).chunk(2, 1)
            y = a.tanh() * b.sigmoid()
            x = x + mix(y)
            total = skip(y) if total is None else total + skip(y)
        return self.out(total)


class PointNet(nn.Module):
    """PointNet (Qi 2017) without its transforms: shared layers over points, the largest of all points."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        self.points = nn.Sequential(*(
            layer for a, b in itertools.pairwise(widths)
            for layer in (nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU())
        ))  # fmt: skip
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.points(x).max(2)[0])


class Detector(nn.Module):
    """A one-stage detector: stages, a pyramid, boxes decoded by writes into slices of the output."""

    def __init__(self) -> None:
        super().__init__()

        def conv(a: int, b: int, stride: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.SiLU())

        self.stem, self.low, self.high = conv(3, 16, 2), conv(16, 32, 2), conv(32, 64, 2)
        self.lateral, self.merge = nn.Conv2d(64, 32, 1), conv(64, 32, 1)
        self.heads = nn.ModuleList((nn.Conv2d(32, 3 * 9, 1), nn.Conv2d(64, 3 * 9, 1)))

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(self.stem(x))
        high = self.high(low)
        up = F.interpolate(self.lateral(high), size=low.shape[2:])
        boxes = []
        for head, level in zip(self.heads, (self.merge(torch.cat([up, low], 1)), high), strict=True):
            y = head(level)
            batch, _, rows, columns = y.shape
            y = y.view(batch, 3, 9, rows, columns).permute(0, 1, 3, 4, 2).sigmoid()
            y[..., 0:2] = y[..., 0:2] * 2 - 0.5
            y[..., 2:4] = (y[..., 2:4] * 2) ** 2
            boxes.append(y.reshape(batch, -1, 9))
        return torch.cat(boxes, 1)


class Translator(nn.Module):
    """nn.Transformer between token embeddings, with masks of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(60, 32), nn.Embedding(60, 32)
        self.transformer, self.out = nn.Transformer(32, 4, 2, 2, 64), nn.Linear(32, 60)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        x, y = self.source(source).transpose(0, 1), self.target(target).transpose(0, 1)
        return self.out(self.transformer(x, y, tgt_mask=causal))


class Siamese(nn.Module):
    """Two images through one encoder, compared by cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 16),
        )  # fmt: skip

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return F.cosine_similarity(self.encoder(a), self.encoder(b))
