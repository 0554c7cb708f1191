"""Windows as a face detector proposes them: faces on photographs, well framed or not, and what is no face.

Faces and other patches are the subset of Labeled Faces in the Wild that ships with scikit-image: 100 of 25×25 pixels of
each kind, in grey. The first half of each is for training and calibration, the second half for measuring, on other
photographs. So what is measured are views of 50 faces and of 50 other patches.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from ..extras import need
from ..text.styles import CALIBRATION, HELD_OUT, Style, background

_KIND = 100  # patches of faces; as many of other things follow
_FRAMED, _MISSED = 0.6, 0.4  # intersection over union of a patch and its window: framed from the first on
_KINDS = (0.45, 0.15, 0.25, 0.15)  # shares of windows: a face, a face that is not well framed, another patch, nothing
_STYLES = {
    "train": replace(CALIBRATION, photographs=CALIBRATION.photographs[1:]),  # the first shows a face
    "test": HELD_OUT,
}


def face_windows(size: int = 48, train: int = 512, test: int = 1024) -> dict[str, TensorDataset]:
    """Makes windows with labels, the same each time.

    Args:
        size: The side of a window in pixels: 24 for R-Net, 48 for O-Net.
        train: How many windows there are to calibrate and to train on.
        test: How many there are to measure on, with other faces and on other photographs.

    Returns:
        `train` and `test`: images (windows, 3, size, size) from -1 to 1, and labels, 1 for a well framed face.

    Raises:
        RecipeError: scikit-image, which brings the faces, is not installed.
    """
    need("data.source=face_windows", "samples", "skimage")
    from skimage.data import lfw_subset

    patches = (lfw_subset() * 255).astype(np.uint8)
    parts = {}
    for part, count in (("train", train), ("test", test)):
        rng = np.random.default_rng((size, count, part == "test"))
        start = _KIND // 2 * (part == "test")
        places = range(start, start + _KIND // 2)
        faces, others = patches[list(places)], patches[[_KIND + place for place in places]]
        samples = [_window(faces, others, _STYLES[part], size, rng) for _ in range(count)]
        parts[part] = TensorDataset(torch.stack([x for x, _ in samples]), torch.tensor([y for _, y in samples]))
    return parts


def _window(
    faces: np.ndarray, others: np.ndarray, style: Style, size: int, rng: np.random.Generator
) -> tuple[Tensor, int]:
    """One window (3, size, size), and whether a face is well framed by it."""
    window = Image.fromarray(background(style, (size, size), rng)).convert("L")
    kind = int(rng.choice(4, p=_KINDS))
    if kind < 3:
        patches = others if kind == 2 else faces
        side, left, top = _place(size, rng, framed=kind == 0 or (kind == 2 and rng.random() < 0.5))
        patch = Image.fromarray(patches[int(rng.integers(len(patches)))])
        if rng.random() < 0.5:
            patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        window.paste(patch.resize((side, side), Image.Resampling.BICUBIC), (left, top))
    pixels = np.asarray(window, dtype=np.float32) * rng.uniform(0.7, 1.2) + rng.uniform(-20, 20)
    grey = torch.from_numpy((np.clip(pixels, 0, 255) - 127.5) / 128).float()
    return grey.expand(3, -1, -1).clone(), int(kind == 0)


def _place(size: int, rng: np.random.Generator, framed: bool) -> tuple[int, int, int]:
    """The side of a patch, and its left and top edge in a window that frames it well, or does not."""
    while True:
        side = round(size * rng.uniform(0.6, 1.3))
        left, top = (round((size - side) / 2 + size * shift) for shift in rng.uniform(-0.5, 0.5, 2))
        inside = [max(0, min(size, edge + side) - max(0, edge)) for edge in (left, top)]
        shared = inside[0] * inside[1]
        overlap = shared / (size**2 + side**2 - shared)
        if overlap >= _FRAMED if framed else overlap <= _MISSED:
            return side, left, top
