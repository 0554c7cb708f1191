"""A page read as EasyOCR reads it: a detector finds words, each is cut out, brought to one height, and read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..networks.text_recogniser import HEIGHT
from .boxes import boxes_of, matches
from .lines import fitted
from .normalisation import image_of, line_of
from .reading import read

Run = Callable[[np.ndarray], np.ndarray]  # a network: from a batch of one to its outputs


@dataclass(frozen=True)
class Reading:
    """What was read of a page.

    Attributes:
        boxes: Shape (words, 4): left, top, right and bottom of each.
        words: What each says.
        finding: Seconds that it took to find the words.
        reading: Seconds that it took to read them all.
    """

    boxes: np.ndarray
    words: tuple[str, ...]
    finding: float
    reading: float

    @property
    def seconds(self) -> float:
        """All that the page took."""
        return self.finding + self.reading


def read_page(pixels: np.ndarray, detect: Run, recognise: Run, width: int) -> Reading:
    """Reads a page.

    Args:
        pixels: Shape (height, width, 3), from 0 to 255, of type uint8.
        detect: From images (1, 3, height, width) to maps (1, 2, height / 2, width / 2).
        recognise: From lines (1, 1, 64, `width`) to scores (1, places, characters + 1).
        width: Of a line in pixels; words that are longer are made narrower.

    Returns:
        Boxes, words and seconds.
    """
    start = time.perf_counter()
    boxes = boxes_of(detect(image_of(pixels)[None])[0])
    middle = time.perf_counter()
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    words = []
    for left, top, right, bottom in boxes.astype(int):
        line = fitted(grey[top : max(bottom, top + 1), left : max(right, left + 1)], width, HEIGHT)
        words.append(read(recognise(line_of(line)[None])[0]))
    return Reading(boxes, tuple(words), middle - start, time.perf_counter() - middle)


def words_shared(ours: Reading, boxes: np.ndarray, words: tuple[str, ...]) -> list[int]:
    """The numbers of those of `words`, each in its one of `boxes` (words, 4), that were read alike in a box that
    overlaps it by half."""
    return [j for i, j in matches(ours.boxes, boxes) if ours.words[i] == words[j]]
