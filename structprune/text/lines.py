"""Grey lines of text as a recogniser takes them: words cut out of what is behind them, brought to one height."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from . import styles
from .pages import draw_word, ink_of
from .styles import Style

MARGIN = 0.15  # of a letter's size, around the ink
_PART = (0.1, 0.4)  # of a photograph that is behind a line


def render_line(style: Style, width: int, height: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Renders a line of one word to three, as many as fit.

    Args:
        style: What it looks like.
        width: Of the line, in pixels.
        height: Of the line, in pixels.
        rng: Draws all that is drawn.

    Returns:
        Pixels of shape (height, width), from 0 to 255, of type uint8, and the text.
    """
    font = styles.font(style, int(rng.choice(style.sizes)), rng)
    words: list[str] = []
    count = int(rng.integers(1, 4))
    for _ in range(20):
        text = " ".join([*words, styles.word(style, rng)])
        left, top, right, bottom = ink_of(text, font)
        if (right - left) * height <= width * (bottom - top):
            words = text.split(" ")
        if len(words) == count:
            break
    text = " ".join(words) or str(int(rng.integers(10)))
    left, top, right, bottom = ink_of(text, font)
    margin = [round(font.size * MARGIN * rng.uniform(0.4, 1.6)) + 1 for _ in range(4)]
    size = bottom - top + margin[1] + margin[3], right - left + margin[0] + margin[2]
    behind = styles.background(style, size, rng, _PART)
    image = Image.fromarray(behind)
    place = margin[0] - left, margin[1] - top
    draw_word(ImageDraw.Draw(image), behind, text, font, place, rng.random() < 0.3, rng)
    return fitted(np.asarray(image.convert("L")), width, height), text


def fitted(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Brings a grey picture to a size: its height first, the rest of the width is its last column, over and over.

    Args:
        pixels: Shape (any, any), from 0 to 255, of type uint8.
        width: Of the result; a line that would be longer is made narrower.
        height: Of the result.

    Returns:
        Shape (height, width), of type uint8.
    """
    across = min(width, max(1, round(pixels.shape[1] * height / pixels.shape[0])))
    line = np.asarray(Image.fromarray(pixels).resize((across, height), Image.Resampling.BICUBIC))
    return np.pad(line, ((0, 0), (0, width - across)), mode="edge")
