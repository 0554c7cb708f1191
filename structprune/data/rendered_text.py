"""Rendered text as data of a run: what calibrates, what is chosen by and what is measured on, each in its own style."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ..calibration.rebatching import batches_from
from ..errors import RecipeError
from ..models.inputs import first_layer
from ..text import styles
from .record import Data, Request
from .spec import TextSpec

Render = Callable[[styles.Style, np.random.Generator], tuple[np.ndarray, np.ndarray]]
_TRAINING = 128  # samples to train on where none are asked for to calibrate


def text_data(spec: TextSpec, count: int, render: Render, request: Request) -> Data:
    """Renders the data of a run.

    Args:
        spec: Says how many samples calibrate.
        count: How many are measured on.
        render: From a style and a generator to a sample, as the network takes it, and its label.
        request: Says the seed of what calibrates. What is measured on is the same for every seed.

    Returns:
        The data, labelled.
    """
    calibrating = _TRAINING if spec.calibration is None else spec.calibration.images
    train = _rendered(render, styles.CALIBRATION, calibrating, (1, request.seed))
    return Data(
        example=train[0][:4],
        test=TensorDataset(*_rendered(render, styles.HELD_OUT, count, (2,))),
        train=TensorDataset(*train),
        validation=TensorDataset(*_rendered(render, styles.CHOICE, count, (3, request.seed)))
        if request.choosing
        else None,
        calibration=None if spec.calibration is None else batches_from(train[0]),
        labelled=True,
    )


def check_channels(request: Request, channels: int, name: str) -> None:
    """Raises RecipeError if the network's first layer takes another number of channels than `channels`."""
    first = first_layer(request.model)
    entering = getattr(first[1], "in_channels", channels) if first is not None else channels
    if entering != channels:
        raise RecipeError(f"data.source={name} has {channels} channels and the model wants {entering}")


def _rendered(render: Render, style: styles.Style, count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    samples = [render(style, np.random.default_rng((*seed, index))) for index in range(count)]
    inputs, labels = (torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True))
    return inputs, labels
