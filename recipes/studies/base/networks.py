"""Small networks of the papers, for the studies in the folder above."""

from __future__ import annotations

from torch import nn

VGG = (16, 16, "pool", 32, 32, "pool", 64, 64, "pool", 64, 64)  # convolutions by their width, for 28×28 pixels


def lenet_300_100(classes: int = 10) -> nn.Sequential:
    """LeCun's two hidden layers of 300 and 100, on 28×28 pixels (Han et al. 2015, table 3)."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, classes)
    )  # fmt: skip


def lenet5(classes: int = 10) -> nn.Sequential:
    """Caffe's LeNet-5, on 28×28 pixels (Han et al. 2015, table 4)."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, classes),
    )  # fmt: skip


def vgg(classes: int = 10) -> nn.Sequential:
    """A small VGG with BatchNorms and one linear layer, as in network slimming's CIFAR experiments."""
    layers: list[nn.Module] = []
    channels = 1
    for width in VGG:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
