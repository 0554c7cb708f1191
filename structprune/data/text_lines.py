"""Rendered grey lines of text, with what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..calibration.batches import BATCH
from ..networks.text_recogniser import HEIGHT
from ..text.lines import render_line
from ..text.normalisation import line_of
from ..text.reading import encoded
from ..text.styles import Style
from .preprocessing import described
from .record import SOURCES, Data, Request, Source
from .rendered_text import check_channels, text_data
from .spec import TextLinesSpec

LONGEST = 64  # characters


def load_text_lines(spec: TextLinesSpec, request: Request) -> Data:
    """Lines from -1 to 1; labels (64,) are the numbers of their characters, then zeros."""
    check_channels(request, 1, "text_lines")

    def render(style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        pixels, text = render_line(style, spec.width, HEIGHT, rng)
        return line_of(pixels), encoded(text, LONGEST)

    data = text_data(spec, (spec.lines, spec.train_lines), render, request, labels=True, batch=BATCH)
    return replace(data, images=described(1, (HEIGHT, spec.width), [0.5], [0.5], "bilinear"))


SOURCES.add(Source("text_lines", "rendered lines of text with what they say", TextLinesSpec, load_text_lines))
