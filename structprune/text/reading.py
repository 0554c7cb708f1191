"""Strings out of a recogniser's scores."""

from __future__ import annotations

import numpy as np

from ..networks.text_recogniser import ALPHABET

BLANK = 0


def encoded(text: str, length: int) -> np.ndarray:
    """The numbers of a text's characters, as the recogniser's scores have them, and zeros up to `length`.

    Args:
        text: Of characters of `ALPHABET`.
        length: Of the result.

    Returns:
        Whole numbers of shape (length,).

    Raises:
        ValueError: A character is not in the alphabet, or there are more than `length`.
    """
    if len(text) > length:
        raise ValueError(f"{text!r} has {len(text)} characters, and there is room for {length}")
    numbers = [ALPHABET.index(character) + 1 for character in text]
    return np.array(numbers + [BLANK] * (length - len(numbers)), dtype=np.int64)


def decoded(numbers: np.ndarray) -> str:
    """The text of numbers of characters; blanks stand for nothing."""
    return "".join(ALPHABET[number - 1] for number in numbers if number != BLANK)


def read(scores: np.ndarray) -> str:
    """Reads a line by CTC, the best character at each place: repeated ones are one, and a blank parts two.

    Args:
        scores: Shape (places, characters + 1).

    Returns:
        The text.
    """
    best = scores.argmax(-1)
    return decoded(best[np.concatenate([[True], best[1:] != best[:-1]])])
