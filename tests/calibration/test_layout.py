"""Images with channels last: what a network makes of them stays the same, or they stay as they are."""

import pytest
import torch
from torch import nn

from structprune.calibration import Batch, WritableNetwork
from structprune.calibration.layout import channels_last
from structprune.ops import Inputs

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class View(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1)  # which is refused where channels are last


class Strided(nn.Module):
    def forward(self, x):
        return x.as_strided((len(x), 4), (x.stride(0), 1))  # which reads other numbers then


def batches(images=IMAGES):
    return [Batch(Inputs((part,), {}), torch.arange(len(part))) for part in images.split(3)]


@pytest.mark.parametrize(
    ("head", "last"), [(nn.Flatten(), True), (View(), False), (Strided(), False)], ids=["any", "views", "strides"]
)
def test_the_same_images_in_another_layout(head, last):
    torch.manual_seed(0)
    network = WritableNetwork.of(nn.Sequential(nn.Conv2d(3, 4, 3), head).eval(), Inputs((IMAGES[:1],), {}))
    laid_out = channels_last(network, batches())
    for batch, given in zip(laid_out, batches(), strict=True):
        assert torch.equal(batch.inputs.args[0], given.inputs.args[0])
        assert torch.equal(batch.labels, given.labels)
        assert batch.inputs.args[0].is_contiguous(memory_format=torch.channels_last) == last


@pytest.mark.parametrize(
    ("model", "images", "memory"),
    [
        (nn.Conv2d(3, 4, 3), IMAGES, 7 * IMAGES.numel() * 4),  # too many for a copy
        (nn.Linear(8, 2), IMAGES, 1e9),
        (nn.Conv1d(3, 4, 3), torch.randn(6, 3, 8), 1e9),
    ],
    ids=["large", "no convolution", "no image"],
)
def test_what_gains_nothing_or_takes_too_much_is_not_copied(model, images, memory):
    network = WritableNetwork.of(model.eval(), Inputs((images[:1],), {}))
    (first, _) = channels_last(network, batches(images), memory)
    assert first.inputs.args[0].data_ptr() == images.data_ptr()
