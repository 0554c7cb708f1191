"""Pages of text on plain paper and on photographs, rendered by seed, with the box of each word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import styles
from .styles import Style

_GAP = 3  # pixels at least between two words that are placed at random


@dataclass(frozen=True)
class Page:
    """A rendered page.

    Attributes:
        pixels: Shape (height, width, 3), from 0 to 255, of type uint8.
        words: The words.
        boxes: Shape (words, 4): left, top, right and bottom of the ink of each, in pixels.
    """

    pixels: np.ndarray
    words: tuple[str, ...]
    boxes: np.ndarray


@dataclass(frozen=True)
class _Placed:
    """A word, and where its base line begins."""

    word: str
    font: ImageFont.FreeTypeFont
    left: float
    base: float

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        left, top, right, bottom = ink_of(self.word, self.font)
        return self.left + left, self.base + top, self.left + right, self.base + bottom


def render_page(style: Style, size: tuple[int, int], rng: np.random.Generator) -> Page:
    """Renders a page.

    Args:
        style: What it looks like.
        size: Height and width in pixels.
        rng: Draws all that is drawn.

    Returns:
        The page, with one word or more.
    """
    height, width = size
    layout = _LAYOUTS[style.layouts[int(rng.integers(len(style.layouts)))]]
    pixels = styles.background(style, size, rng)
    placed: list[_Placed] = []
    while not placed:
        for each in layout(style, size, rng):
            left, top, right, bottom = each.box
            if left >= 2 and top >= 2 and right <= width - 2 and bottom <= height - 2:
                placed.append(each)
    image = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(image)
    outlined = rng.random() < 0.3
    for each in placed:
        draw_word(canvas, pixels, each.word, each.font, (each.left, each.base), outlined, rng)
    boxes = np.array([each.box for each in placed], dtype=np.float32)
    return Page(np.asarray(image), tuple(each.word for each in placed), boxes)


def ink_of(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int, int, int]:
    """Where the ink of a text is, from where its base line begins: left, top, right, bottom in pixels."""
    mask, (left, top) = font.getmask2(text, mode="L", anchor="ls")
    a, b, c, d = mask.getbbox() or (0, 0, 1, 1)
    return left + a, top + b, left + c, top + d


def draw_word(
    canvas: ImageDraw.ImageDraw,
    behind: np.ndarray,
    word: str,
    font: ImageFont.FreeTypeFont,
    place: tuple[float, float],
    outlined: bool,
    rng: np.random.Generator,
) -> None:
    """Draws a word in a colour that can be read on what is behind it.

    Args:
        canvas: Where to.
        behind: Pixels of the canvas, of shape (height, width, 3).
        word: The word.
        font: Its font.
        place: Where its base line begins.
        outlined: Whether it gets an outline of the opposite colour where it is large enough.
        rng: Draws the colour.
    """
    left, top, right, bottom = ink_of(word, font)
    x, y = int(place[0]), int(place[1])
    patch = behind[max(0, y + top) : y + bottom + 1, max(0, x + left) : x + right + 1]
    light = patch.mean() > 120
    ink = rng.uniform(0, 50, 3) if light else rng.uniform(215, 256, 3)
    stroke = 1 if outlined and font.size >= 16 else 0
    colours = tuple(int(v) for v in ink), tuple(int(255 - v) for v in ink)
    canvas.text((x, y), word, font=font, fill=colours[0], anchor="ls", stroke_width=stroke, stroke_fill=colours[1])


def _size(style: Style, rng: np.random.Generator) -> int:
    return int(rng.choice(style.sizes))


def _line(
    style: Style, font: ImageFont.FreeTypeFont, left: float, right: float, base: float, rng: np.random.Generator
) -> Iterator[_Placed]:
    """Words from `left` on, as many as end before `right`."""
    space = max(font.getlength(" "), font.size * 0.3)
    while True:
        word = styles.word(style, rng)
        if left + font.getlength(word) > right:
            return
        yield _Placed(word, font, round(left), round(base))
        left += font.getlength(word) + space


def _paragraph(style: Style, size: tuple[int, int], rng: np.random.Generator) -> Iterator[_Placed]:
    """Lines of one font, as wide as the page."""
    height, width = size
    font = styles.font(style, _size(style, rng), rng)
    margin, leading = rng.uniform(6, 24), font.size * rng.uniform(1.25, 1.8)
    base = margin + font.size
    while base < height - margin:
        yield from _line(style, font, margin, width - margin, base, rng)
        base += leading


def _list(style: Style, size: tuple[int, int], rng: np.random.Generator) -> Iterator[_Placed]:
    """Lines of one to three words, each in a font of its own."""
    height, width = size
    base = rng.uniform(4, 16)
    while base < height:
        font = styles.font(style, _size(style, rng), rng)
        base += font.size * rng.uniform(1.3, 1.7)
        left = rng.uniform(6, width / 4)
        count = int(rng.integers(1, 4))
        for each, _ in zip(_line(style, font, left, width - 6, base, rng), range(count), strict=False):
            yield each


def _scattered(style: Style, size: tuple[int, int], rng: np.random.Generator) -> Iterator[_Placed]:
    """Single words anywhere, in many fonts and sizes."""
    height, width = size
    boxes: list[tuple[float, float, float, float]] = []
    for _ in range(int(rng.integers(10, 50))):
        font = styles.font(style, _size(style, rng), rng)
        word = styles.word(style, rng)
        each = _Placed(word, font, round(rng.uniform(2, width)), round(rng.uniform(font.size, height)))
        left, top, right, bottom = each.box
        room = _GAP + font.size / 2
        clear = all(
            left - room > box[2] or right + room < box[0] or top - _GAP > box[3] or bottom + _GAP < box[1]
            for box in boxes
        )
        if clear and right < width:
            boxes.append(each.box)
            yield each


def _columns(style: Style, size: tuple[int, int], rng: np.random.Generator) -> Iterator[_Placed]:
    """A heading above two columns, whose lines may end short."""
    height, width = size
    heading = styles.font(style, max(style.sizes), rng)
    base = 10.0 + heading.size
    yield from _line(style, heading, 10, width - 10, base, rng)
    small = sorted(style.sizes)[: max(1, len(style.sizes) // 2)]
    font = styles.font(style, int(rng.choice(small)), rng)
    leading, middle = font.size * rng.uniform(1.3, 1.6), width * rng.uniform(0.45, 0.55)
    for left, right in ((8.0, middle - font.size), (middle, width - 8.0)):
        line = base + leading * 1.5
        while line < height - 8:
            yield from _line(style, font, left, right - rng.uniform(0, font.size * 3), line, rng)
            line += leading


def _table(style: Style, size: tuple[int, int], rng: np.random.Generator) -> Iterator[_Placed]:
    """Cells of one or two words in rows and columns, in two fonts."""
    height, width = size
    fonts = [styles.font(style, _size(style, rng), rng) for _ in range(2)]
    row, column = max(f.size for f in fonts) * rng.uniform(1.6, 2.4), width / int(rng.integers(2, 4))
    base = row
    while base < height - 4:
        left = rng.uniform(6, 14)
        for index in range(int(width // column)):
            place, end = left + index * column, left + (index + 1) * column - fonts[0].size * 0.8
            yield from _line(style, fonts[index % 2], place, min(end, width - 4), base, rng)
        base += row


def _sign(style: Style, size: tuple[int, int], rng: np.random.Generator) -> Iterator[_Placed]:
    """A few lines in the middle, each of a font and a size of its own."""
    height, width = size
    base = height * rng.uniform(0.05, 0.3)
    while base < height * rng.uniform(0.75, 1):
        font = styles.font(style, _size(style, rng), rng)
        base += font.size * rng.uniform(1.4, 1.9)
        line = list(_line(style, font, 0, width * rng.uniform(0.5, 0.95), base, rng))
        spare = width - (line[-1].box[2] if line else width)
        for each in line:
            yield _Placed(each.word, each.font, round(each.left + spare / 2), each.base)


_LAYOUTS: dict[str, Callable[[Style, tuple[int, int], np.random.Generator], Iterator[_Placed]]] = {
    "paragraph": _paragraph,
    "scattered": _scattered,
    "list": _list,
    "columns": _columns,
    "table": _table,
    "sign": _sign,
}
