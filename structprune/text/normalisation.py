"""Pixels as the networks take them."""

from __future__ import annotations

import numpy as np

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def image_of(pixels: np.ndarray) -> np.ndarray:
    """Pixels (height, width, 3) from 0 to 255 as a text detector takes them: (3, height, width), of type float32."""
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)


def line_of(pixels: np.ndarray) -> np.ndarray:
    """Pixels (height, width) from 0 to 255 as a recogniser takes them: (1, height, width), from -1 to 1."""
    return (pixels[None] / 127.5 - 1).astype(np.float32)
