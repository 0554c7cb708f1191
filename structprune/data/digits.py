"""scikit-learn's handwritten digits, which ship with it: labelled, grey, 8×8, always split alike."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from ..calibration.rebatching import batches_from
from ..errors import RecipeError
from .preprocessing import config_of
from .record import SOURCES, Data, Request, Source
from .spec import DigitsSpec
from .splitting import VALIDATION, split_off


def load_digits_data(spec: DigitsSpec, request: Request) -> Data:
    """The digits, normalised. Raises RecipeError where they do not fit the model."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    classes = getattr(request.model, "num_classes", 10)
    if classes != 10:
        raise RecipeError(f"data.source=digits has 10 classes and the model {classes}: set model.kwargs.num_classes=10")
    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16
    config, _ = config_of(request.model)
    channels = config["input_size"][0]
    if channels not in (1, 3):
        raise RecipeError(f"data.source=digits is grey and the model wants {channels} channels: set in_chans to 1 or 3")
    pixels = F.interpolate(pixels, spec.image_size, mode="bilinear", align_corners=False).expand(-1, channels, -1, -1)
    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=0.2, stratify=labels, random_state=0)
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
            raise RecipeError(
                f"data.calibration.images={spec.calibration.images}: the digits have {len(train)} to train on"
            )
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
    )


SOURCES.add(Source("digits", "scikit-learn's 1797 handwritten digits, labelled", DigitsSpec, load_digits_data))
