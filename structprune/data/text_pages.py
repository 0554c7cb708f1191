"""Rendered pages of text, with the box of each word."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..text.normalisation import MEAN, STD, image_of
from ..text.pages import render_page
from ..text.styles import Style
from .preprocessing import described
from .record import SOURCES, Data, Request, Source
from .rendered_text import check_channels, text_data
from .spec import TextPagesSpec

MOST = 256  # words of a page that are labelled
_BATCH = 8  # pages: what a detector makes of 32 takes a gigabyte


def load_text_pages(spec: TextPagesSpec, request: Request) -> Data:
    """Pages in colour, normalised by ImageNet's mean and deviation; labels (256, 4) are boxes, then zeros."""
    check_channels(request, 3, "text_pages")
    side = spec.image_size

    def render(style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        page = render_page(style, (side, side), rng)
        boxes = np.zeros((MOST, 4), dtype=np.float32)
        boxes[: len(page.boxes)] = page.boxes[:MOST]
        return image_of(page.pixels), boxes

    data = text_data(spec, (spec.pages, spec.train_pages), render, request, labels=False, batch=_BATCH)
    return replace(data, images=described(3, (side, side), MEAN, STD, "bilinear"))


SOURCES.add(Source("text_pages", "rendered pages of text with a box for each word", TextPagesSpec, load_text_pages))
