"""A network of 8 filters and 192 images of three classes that it learns in a second, and a training that is killed."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from structprune.train import fit


def samples():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (192,), generator=generator)
    images = torch.randn(192, 1, 6, 6, generator=generator) + 2 * labels[:, None, None, None]
    return images, labels


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(128, 3)
    )


def equal(one, other):
    return all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in one.state_dict().items())


def interrupted(spec, folder, at, **options):
    """A training that is killed at a step and goes on."""

    def interrupt(step, steps, shown):
        if step == at:
            raise KeyboardInterrupt

    options = {"seed": 5, "checkpoint": folder / "part", **options}
    with pytest.raises(KeyboardInterrupt):
        fit(network(), TensorDataset(*samples()), spec, progress=interrupt, **options)
    return fit(network(), TensorDataset(*samples()), spec, **options)
