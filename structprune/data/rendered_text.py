"""Rendered text as data of a run: what calibrates, what is chosen by and what is measured on, each in its own style."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ..calibration import Batch
from ..errors import RecipeError
from ..models.inputs import first_layer
from ..ops import Inputs
from ..text import styles
from ..text.fonts import fonts_in
from .record import Data, Request
from .spec import TextSpec

Render = Callable[[styles.Style, np.random.Generator], tuple[np.ndarray, np.ndarray]]
_EXAMPLES = 4  # for tracing, gate and export


def text_data(
    spec: TextSpec, counts: tuple[int, int], render: Render, request: Request, *, labels: bool, batch: int
) -> Data:
    """Renders the data of a run.

    Args:
        spec: Says how many samples calibrate.
        counts: How many are measured on, and how many are trained on in an epoch.
        render: From a style and a generator to a sample, as the network takes it, and its label.
        request: Says the seed of what calibrates. What is measured on is the same for every seed.
        labels: Whether training samples come with labels, for a task that has a loss by them.
        batch: How many samples calibrate at a time.

    Returns:
        The data, labelled.
    """
    calibration = validation = None
    seed = request.seed
    calibrating, training = _styles(spec)
    if spec.calibration is not None:
        inputs = _rendered(render, calibrating, spec.calibration.images, (1, seed))[0]
        calibration = [Batch(Inputs((part,), {})) for part in inputs.split(batch)]
    if request.choosing:
        validation = TensorDataset(*_rendered(render, styles.CHOICE, counts[0], (3, seed)))
    return Data(
        example=_rendered(render, styles.CALIBRATION, _EXAMPLES, (4, seed))[0],
        test=TensorDataset(*_rendered(render, styles.HELD_OUT, counts[0], (2,))),
        train=FreshText(render, training, counts[1], labels),
        validation=validation,
        calibration=calibration,
        labelled=True,
        workers=spec.workers,
        identity=_identity(training) if spec.fonts is not None else "",
    )


class FreshText(Dataset[tuple[Tensor, ...]]):
    """Text to train on, other text each time. PyTorch's generator decides, so that epochs seeded alike are alike."""

    def __init__(self, render: Render, style: styles.Style, count: int, labels: bool) -> None:
        self.render, self.style, self.count, self.labels = render, style, count, labels

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        sample = self.render(self.style, rng)
        return tuple(torch.from_numpy(part) for part in sample[: 1 + self.labels])


def _styles(spec: TextSpec) -> tuple[styles.Style, styles.Style]:
    """What text looks like that calibrates, and that is trained on."""
    if spec.fonts is None:
        return styles.CALIBRATION, styles.TRAINING
    fonts = (*styles.CALIBRATION.fonts, *fonts_in(Path(spec.fonts)))
    return replace(styles.CALIBRATION, fonts=fonts), replace(styles.TRAINING, fonts=fonts)


def _identity(style: styles.Style) -> str:
    """What is trained on depends on files that few samples show: the fonts of the user's."""
    states = ((font, Path(font).stat()) for font in style.fonts if Path(font).is_absolute())
    return "\n".join(f"{font} {state.st_size} {state.st_mtime_ns}" for font, state in states)


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
