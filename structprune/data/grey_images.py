"""Small grey images with labels that are held in memory, always split alike: a fifth of each class is held out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from ..calibration.rebatching import batches_from
from ..errors import RecipeError
from .preprocessing import config_of, described
from .record import Data, Request
from .spec import GreySpec
from .splitting import VALIDATION, split_off


def grey_data(name: str, pixels: Tensor, labels: np.ndarray, spec: GreySpec, request: Request) -> Data:
    """Grey images as data of a run, enlarged and normalised by the mean and spread of those to train on.

    Args:
        name: What messages call the images, which is their `data.source`.
        pixels: (N, 1, height, width), from 0 to 1.
        labels: (N,) the class of each, 0 to 9.
        spec: Says the size, and how many calibrate.
        request: Says the network, which has to take one channel (or says that it takes three), and to have ten classes.

    Returns:
        The data, split by class with a seed of its own, so that all runs hold the same images out.

    Raises:
        RecipeError: The images do not fit the network, or there are fewer than are to calibrate.
    """
    from sklearn.model_selection import train_test_split

    from ..models.inputs import says_its_channels

    classes = getattr(request.model, "num_classes", 10)
    if classes != 10:
        raise RecipeError(f"data.source={name} has 10 classes and the model {classes}: set model.kwargs.num_classes=10")
    config, _ = config_of(request.model)
    channels = config["input_size"][0] if says_its_channels(request.model) else 1
    if channels not in (1, 3):
        raise RecipeError(f"data.source={name} is grey and the model wants {channels} channels: set in_chans to 1 or 3")
    pixels = F.interpolate(pixels, spec.image_size, mode="bilinear", align_corners=False).expand(-1, channels, -1, -1)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    mean, std = pixels[train].mean(), pixels[train].std()
    pixels = ((pixels - mean) / std).contiguous()
    target = torch.from_numpy(labels).long()
    validation = None
    if request.choosing:
        stays, off = split_off(len(train), VALIDATION, request.seed, labels[train])
        train, chosen = train[stays], train[off]
        validation = TensorDataset(pixels[chosen], target[chosen])
    calibration = None
    if spec.calibration is not None:
        if spec.calibration.images > len(train):
            raise RecipeError(f"data.calibration.images={spec.calibration.images}: {name} has {len(train)} to train on")
        chosen = np.random.default_rng(request.seed).permutation(train)[: spec.calibration.images]
        calibration = batches_from(pixels[chosen], target[chosen])
    return Data(
        example=pixels[train[:4]],
        test=TensorDataset(pixels[test], target[test]),
        train=TensorDataset(pixels[train], target[train]),
        validation=validation,
        calibration=calibration,
        labelled=True,
        classes=10,
        images=described(channels, pixels.shape[2:], [float(mean)] * channels, [float(std)] * channels, "bilinear"),
        names=[str(digit) for digit in range(10)],
    )
