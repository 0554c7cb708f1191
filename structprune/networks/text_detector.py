"""CRAFT, the text detector of EasyOCR (Baek et al., Character Region Awareness for Text Detection, CVPR 2019).

The trunk of a VGG16 with BatchNorm, and a U-shaped head that joins its stages from the coarsest to the finest.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The trunk, stage by stage: a width is a convolution with its BatchNorm, "relu" and "pool" are themselves. Layers are
# numbered on from stage to stage, as in torchvision's VGG16, whose numbers are the keys of the weights. A stage ends
# before the activation of its last convolution.
_STAGES: tuple[tuple[int | str, ...], ...] = (
    (64, "relu", 64, "relu", "pool", 128, "relu", 128),
    ("relu", "pool", 256, "relu", 256),
    ("relu", 256, "relu", "pool", 512, "relu", 512),
    ("relu", 512, "relu", "pool", 512, "relu", 512),
)


class TextDetector(nn.Module):
    """Maps of where characters are, and where they join to words.

    Takes images (samples, 3, height, width), normalised by ImageNet's mean and standard deviation, with sides that are
    multiples of 16. Returns (samples, 2, height / 2, width / 2): for each place the score of a character's middle, and
    of the middle between two characters of a word, from about 0 to 1.

    Args:
        width: What all widths are multiplied by. The trained weights have 1.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.basenet = _Trunk(width)
        a, b, c, d, e, f = (_scaled(channels, width) for channels in (512, 256, 128, 64, 32, 16))
        self.upconv1 = _Join(a * 2 + a, a, b)
        self.upconv2 = _Join(b + a, b, c)
        self.upconv3 = _Join(c + b, c, d)
        self.upconv4 = _Join(d + c, d, e)
        self.conv_cls = nn.Sequential(
            *(nn.Conv2d(e, e, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(e, e, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(e, f, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(f, f, 1), nn.ReLU()),
            nn.Conv2d(f, 2, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Gives the maps of images.

        Args:
            images: Shape (samples, 3, height, width).

        Returns:
            Shape (samples, 2, height / 2, width / 2).
        """
        half, quarter, eighth, last, wide = self.basenet(images)
        x = self.upconv1(torch.cat([wide, last], dim=1))
        for stage, join in ((eighth, self.upconv2), (quarter, self.upconv3), (half, self.upconv4)):
            x = F.interpolate(x, size=stage.shape[2:], mode="bilinear", align_corners=False)
            x = join(torch.cat([x, stage], dim=1))
        return self.conv_cls(x)


class _Trunk(nn.Module):
    """What VGG16 makes of images at a half, a quarter, an eighth and, twice, a sixteenth of their size."""

    def __init__(self, width: float) -> None:
        super().__init__()
        stages: list[nn.Sequential] = []
        channels, place = 3, 0
        for stage in _STAGES:
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for kind in stage:
                if isinstance(kind, int):
                    entering, channels = channels, _scaled(kind, width)
                    layers[str(place)] = nn.Conv2d(entering, channels, 3, padding=1)
                    layers[str(place + 1)] = nn.BatchNorm2d(channels)
                    place += 2
                else:
                    layers[str(place)] = nn.ReLU() if kind == "relu" else nn.MaxPool2d(2)
                    place += 1
            stages.append(nn.Sequential(layers))
        self.slice1, self.slice2, self.slice3, self.slice4 = stages
        wide = 2 * channels
        self.slice5 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(channels, wide, 3, padding=6, dilation=6),
            nn.Conv2d(wide, wide, 1),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        half = self.slice1(images)
        quarter = self.slice2(half)
        eighth = self.slice3(quarter)
        last = self.slice4(eighth)
        # the head has been trained on these three after the activation with which the next stage begins
        return F.relu(half), F.relu(quarter), F.relu(eighth), last, self.slice5(last)


class _Join(nn.Module):
    """Two stages as one: a 1×1 and a 3×3 convolution."""

    def __init__(self, entering: int, middle: int, leaving: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *(nn.Conv2d(entering, middle, 1), nn.BatchNorm2d(middle), nn.ReLU()),
            *(nn.Conv2d(middle, leaving, 3, padding=1), nn.BatchNorm2d(leaving), nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def _scaled(channels: int, width: float) -> int:
    return max(2, round(channels * width))
