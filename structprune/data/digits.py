"""scikit-learn's handwritten digits, which ship with it: 1797 labelled images of 8×8."""

from __future__ import annotations

import torch

from .grey_images import grey_data
from .record import SOURCES, Data, Request, Source
from .spec import DigitsSpec


def load_digits_data(spec: DigitsSpec, request: Request) -> Data:
    """The digits, normalised. Raises RecipeError where they do not fit the model."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return grey_data("digits", torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16, labels, spec, request)


SOURCES.add(Source("digits", "scikit-learn's 1797 handwritten digits, labelled", DigitsSpec, load_digits_data))
