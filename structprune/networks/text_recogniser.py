"""The English recogniser of EasyOCR's second generation: a CRNN (Shi, Bai and Yao, TPAMI 2017)."""

from __future__ import annotations

from torch import Tensor, nn

# What each score stands for; the first is the blank of CTC, which stands for nothing.
ALPHABET = "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HEIGHT = 64  # of a line, in pixels


class TextRecogniser(nn.Module):
    """Scores of characters along a line of text, to be read by CTC.

    Takes grey lines (samples, 1, 64, width), from -1 to 1. Returns (samples, width / 4 - 1, characters + 1): at each
    place the scores of nothing (the blank), and of each character of `ALPHABET`.

    Args:
        channels: Of the last convolutions. The trained weights have 256.
        hidden: Units of an LSTM in one direction. The trained weights have 256.
    """

    def __init__(self, channels: int = 256, hidden: int = 256) -> None:
        super().__init__()
        self.FeatureExtraction = _Trunk(channels)
        self.SequenceModeling = nn.Sequential(_BothWays(channels, hidden), _BothWays(hidden, hidden))
        self.Prediction = nn.Linear(hidden, len(ALPHABET) + 1)

    def forward(self, lines: Tensor) -> Tensor:
        """Gives the scores of lines.

        Args:
            lines: Shape (samples, 1, 64, width).

        Returns:
            Shape (samples, width / 4 - 1, characters + 1).
        """
        columns = self.FeatureExtraction(lines).mean(2).transpose(1, 2)
        return self.Prediction(self.SequenceModeling(columns))


class _Trunk(nn.Module):
    """A VGG that halves the width of a line twice and its height four times."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        a, b, c, d = channels // 8, channels // 4, channels // 2, channels
        self.ConvNet = nn.Sequential(
            *(nn.Conv2d(1, a, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(c, c, 3, padding=1), nn.ReLU(), nn.MaxPool2d((2, 1))),
            *(nn.Conv2d(c, d, 3, padding=1, bias=False), nn.BatchNorm2d(d), nn.ReLU()),
            *(nn.Conv2d(d, d, 3, padding=1, bias=False), nn.BatchNorm2d(d), nn.ReLU(), nn.MaxPool2d((2, 1))),
            *(nn.Conv2d(d, d, 2), nn.ReLU()),
        )

    def forward(self, lines: Tensor) -> Tensor:
        return self.ConvNet(lines)


class _BothWays(nn.Module):
    """An LSTM along a line, from both ends, and a linear layer that joins the two."""

    def __init__(self, entering: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(entering, hidden, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden, hidden)

    def forward(self, columns: Tensor) -> Tensor:
        return self.linear(self.rnn(columns)[0])
