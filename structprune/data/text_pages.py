"""Rendered pages of text, with the box of each word."""

from __future__ import annotations

import numpy as np

from ..text.pages import render_page
from ..text.styles import Style
from .record import SOURCES, Data, Request, Source
from .rendered_text import check_channels, text_data
from .spec import TextPagesSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
MOST = 256  # words of a page that are labelled


def load_text_pages(spec: TextPagesSpec, request: Request) -> Data:
    """Pages in colour, normalised by ImageNet's mean and deviation; labels (256, 4) are boxes, then zeros."""
    check_channels(request, 3, "text_pages")
    side = spec.image_size

    def render(style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        page = render_page(style, (side, side), rng)
        boxes = np.zeros((MOST, 4), dtype=np.float32)
        boxes[: len(page.boxes)] = page.boxes[:MOST]
        return normalised(page.pixels), boxes

    return text_data(spec, spec.pages, render, request)


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Pixels (height, width, 3) from 0 to 255 as a text detector takes them: (3, height, width), of type float32."""
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)


SOURCES.add(Source("text_pages", "rendered pages of text with a box for each word", TextPagesSpec, load_text_pages))
