"""Boxes of words out of a text detector's maps, and which boxes of one set are in another."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

TEXT, LINK, LOW = 0.7, 0.4, 0.4  # as EasyOCR has them
_LEAST = 10  # places of a map that a word takes at least
_ACROSS = 2  # pixels of an image to a place of its map


def boxes_of(maps: np.ndarray) -> np.ndarray:
    """Finds the words in the maps of one image, as upright boxes (Baek et al., CVPR 2019, section 3.3).

    Places where a character or a join scores are put together to words; those without a sure character are dropped.

    Args:
        maps: Shape (2, height, width): scores of characters, and of joins between them.

    Returns:
        Shape (words, 4): left, top, right and bottom, in pixels of the image, which is twice as large as the maps.
    """
    text, link = maps
    height, width = text.shape
    characters, joins = text > LOW, link > LINK
    labels, _ = ndimage.label(characters | joins)
    boxes = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[place] == number
        size = int(inside.sum())
        if size < _LEAST or text[place][inside].max() < TEXT:
            continue
        rows, columns = np.nonzero(inside & characters[place])  # a join alone widens no box
        down, across = (part.stop - part.start for part in place)
        # characters' maps fall off before they end
        spread = int((size * min(across, down) / (across * down)) ** 0.5 * 2) / 2
        top, left = place[0].start, place[1].start
        box = (
            max(0, left + columns.min() - spread),
            max(0, top + rows.min() - spread),
            min(width, left + columns.max() + 1 + spread),
            min(height, top + rows.max() + 1 + spread),
        )
        boxes.append([_ACROSS * float(edge) for edge in box])
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of each box of `a` (n, 4) with each of `b` (m, 4): shape (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return shared / np.where(union > 0, union, 1)


def matches(a: np.ndarray, b: np.ndarray, least: float = 0.5) -> list[tuple[int, int]]:
    """Pairs boxes of two sets, each at most once, so that as many as possible overlap by `least`.

    Args:
        a: Shape (n, 4).
        b: Shape (m, 4).
        least: The intersection over union from which on two boxes are the same.

    Returns:
        The index in `a` and the index in `b` of each pair.
    """
    shared = overlaps(a, b)
    pairs = zip(*linear_sum_assignment(-np.where(shared >= least, 1 + shared, 0)), strict=True)
    return [(int(i), int(j)) for i, j in pairs if shared[i, j] >= least]
