"""Rendered pages and lines: their labels are right, seeds decide, and no style shows what another does."""

from dataclasses import replace

import numpy as np
import pytest

from structprune.networks.text_recogniser import ALPHABET
from structprune.text import styles
from structprune.text.boxes import overlaps
from structprune.text.lines import fitted, render_line
from structprune.text.pages import render_page

STYLES = (styles.CALIBRATION, styles.CHOICE, styles.HELD_OUT)


@pytest.mark.parametrize("field", ["fonts", "sizes", "layouts", "words", "photographs"])
def test_no_style_shows_what_another_does(field):
    parts = [set(getattr(style, field)) for style in STYLES]
    assert all(parts)
    assert not any(parts[i] & parts[j] for i, j in ((0, 1), (0, 2), (1, 2)))
    trained_on = set(getattr(styles.TRAINING, field))
    assert trained_on >= parts[0] or field == "sizes"
    assert not trained_on & (parts[1] | parts[2])


def test_words_have_letters_that_a_recogniser_knows():
    for style in (*STYLES, styles.TRAINING):
        rng = np.random.default_rng(0)
        assert set("".join(styles.word(style, rng) for _ in range(300))) <= set(ALPHABET)


def test_some_of_the_words_that_are_trained_on_are_invented():
    rng = np.random.default_rng(0)
    words = [styles.word(replace(styles.TRAINING, invented=0.5), rng).strip("().,:;!?").lower() for _ in range(600)]
    letters = [word for word in words if word.isalpha()]
    invented = [word for word in letters if word not in styles.TRAINING.words]
    assert 0.4 < len(invented) / len(letters) < 0.6
    assert len(set(invented)) > 0.9 * len(invented)


@pytest.mark.parametrize("style", STYLES)
def test_boxes_hold_the_ink_of_their_words(style, monkeypatch):
    """On white paper all that is dark is in the boxes, and each box has ink at all four edges."""
    monkeypatch.setattr(styles, "background", lambda style, size, *rest: np.full((*size, 3), 255, np.uint8))
    for seed in range(3):
        page = render_page(style, (192, 256), np.random.default_rng(seed))
        assert page.pixels.shape == (192, 256, 3)
        assert len(page.words) == len(page.boxes) > 0
        dark = page.pixels.min(2) < 160
        inside = np.zeros_like(dark)
        for left, top, right, bottom in page.boxes.astype(int):
            inside[top - 1 : bottom + 1, left - 1 : right + 1] = True
            ink = np.argwhere(dark[top - 1 : bottom + 1, left - 1 : right + 1])
            (low, near), (high, far) = ink.min(0), ink.max(0)
            assert max(low, near) <= 3
            assert min(bottom - top - high, right - left - far) <= 3
        assert not (dark & ~inside).any()
        shared = overlaps(page.boxes, page.boxes)
        assert (shared - np.eye(len(shared))).max() < 0.1  # words stand beside each other


def test_seeds_decide():
    first, again, other = (
        render_page(styles.HELD_OUT, (128, 128), np.random.default_rng(seed)) for seed in ((0, 1), (0, 1), (0, 2))
    )
    assert np.array_equal(first.pixels, again.pixels)
    assert first.words == again.words
    assert not np.array_equal(first.pixels, other.pixels)


def test_lines_are_of_one_size_and_say_something():
    for style in STYLES:
        lines = [render_line(style, 200, 64, np.random.default_rng(seed)) for seed in range(8)]
        assert {pixels.shape for pixels, _ in lines} == {(64, 200)}
        assert all(text and pixels.std() > 3 for pixels, text in lines)


def test_a_short_line_ends_in_its_last_column_and_a_long_one_is_made_narrower():
    ramp = np.tile(np.arange(40, dtype=np.uint8) * 6, (32, 1))
    short, long = fitted(ramp, 200, 64), fitted(ramp, 50, 64)
    assert short.shape == (64, 200)
    assert (short[:, 80:] == short[:, 79:80]).all()
    assert long.shape == (64, 50)
    assert long[0, 0] < 12 < 220 < long[0, -1]
