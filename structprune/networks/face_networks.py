"""The three networks of MTCNN, a face detector (Zhang et al., Joint Face Detection and Alignment Using Multitask
Cascaded Convolutional Networks, IEEE Signal Processing Letters 2016, figure 2).

Each takes images (samples, 3, height, width), from -1 to 1, and returns a dict: `logits`, the scores of no face and of
a face; `boxes`, by how much of the sides of the window its left, top, right and bottom are off; and the last one
`points`, where in the window eyes, nose and mouth are: five times across, then five times down. The softmax over
the scores is left to whoever reads them. Keys are those of the weights in the package facenet-pytorch.
"""

from __future__ import annotations

from torch import Tensor, nn


class FaceProposer(nn.Module):
    """P-Net: looks at each window of 12×12 of an image of any size, every second place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Gives what it makes of images.

        Args:
            images: Shape (samples, 3, height, width).

        Returns:
            `logits` (samples, 2, h, w) and `boxes` (samples, 4, h, w), h and w being about half of height and width.
        """
        x = self.pool1(self.prelu1(self.conv1(images)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return {"logits": self.conv4_1(x), "boxes": self.conv4_2(x)}


class FaceRefiner(nn.Module):
    """R-Net: looks at a proposed window, resized to 24×24."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(64 * 3 * 3, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Gives what it makes of windows.

        Args:
            images: Shape (samples, 3, 24, 24).

        Returns:
            `logits` (samples, 2) and `boxes` (samples, 4).
        """
        x = self.pool1(self.prelu1(self.conv1(images)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu4(self.dense4(_column_by_column(self.prelu3(self.conv3(x)))))
        return {"logits": self.dense5_1(x), "boxes": self.dense5_2(x)}


class FaceFinisher(nn.Module):
    """O-Net: looks at a window that passed, resized to 48×48, and says where eyes, nose and mouth are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, ceil_mode=True)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(128 * 3 * 3, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Gives what it makes of windows.

        Args:
            images: Shape (samples, 3, 48, 48).

        Returns:
            `logits` (samples, 2), `boxes` (samples, 4) and `points` (samples, 10).
        """
        x = self.pool1(self.prelu1(self.conv1(images)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu5(self.dense5(_column_by_column(self.prelu4(self.conv4(x)))))
        return {"logits": self.dense6_1(x), "boxes": self.dense6_2(x), "points": self.dense6_3(x)}


def _column_by_column(maps: Tensor) -> Tensor:
    """Maps (samples, channels, height, width) as rows, in the order of the framework that the weights come from."""
    return maps.permute(0, 3, 2, 1).flatten(1)
