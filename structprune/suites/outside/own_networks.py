"""Networks written after well-known shapes: sound, text, super-resolution, recurrent, points, detection."""

from __future__ import annotations

import torch
from torch import nn

from ..as_users import users
from .registry import Built, image, network, tokens

_classes = users("outside_networks")


@network("own", "own_m5_audio")
def _() -> Built:
    """M5 (Dai 2017): raw sound by 1-d convolutions."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in ((1, 32, 80, 16), (32, 32, 3, 1), (32, 64, 3, 1), (64, 64, 3, 1)):
        layers += [nn.Conv1d(inputs, outputs, kernel, stride), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 10)), torch.randn(2, 1, 4000)


@network("own", "own_crnn_lstm")
def _() -> Built:
    return _classes.Reader(nn.LSTM), torch.randn(1, 1, 32, 64)


@network("own", "own_crnn_gru")
def _() -> Built:
    return _classes.Reader(nn.GRU), torch.randn(1, 1, 32, 64)


@network("own", "own_speech_deepspeech")
def _() -> Built:
    return _classes.DeepSpeech(), torch.randn(1, 1, 32, 40)


@network("own", "own_sentiment_lstm")
def _() -> Built:
    return _classes.Sentiment(), tokens()


@network("own", "own_conv_lstm")
def _() -> Built:
    return _classes.ConvLSTM(), torch.randn(1, 3, 1, 16, 16)


@network("own", "own_edsr")
def _() -> Built:
    """EDSR (Lim 2017): residual blocks without norms, pixel shuffle."""

    blocks = [_classes.ResidualBlock() for _ in range(4)]
    tail = (nn.Conv2d(16, 64, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(16, 3, 3, 1, 1))
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), *blocks, *tail), image(24)


@network("own", "own_dcgan_generator")
def _() -> Built:
    """DCGAN (Radford 2016): a Linear makes the first map, transposed convolutions grow it."""
    return nn.Sequential(
        nn.Linear(20, 32 * 16), nn.Unflatten(1, (32, 4, 4)), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
    ), torch.randn(2, 20)  # fmt: skip


@network("own", "own_wavenet")
def _() -> Built:
    return _classes.WaveNet(), torch.randn(1, 1, 64)


@network("own", "own_pointnet")
def _() -> Built:
    return _classes.PointNet(), torch.randn(2, 3, 50)


@network("own", "own_yolo_head")
def _() -> Built:
    return _classes.Detector(), image(64)


@network("own", "own_transformer_translator")
def _() -> Built:
    return _classes.Translator(), (tokens(), tokens(9))


@network("own", "own_siamese")
def _() -> Built:
    return _classes.Siamese(), (image(32), image(32))
