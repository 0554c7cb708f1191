"""Boxes out of maps and strings out of scores, by hand."""

import numpy as np
import pytest

from structprune.text.boxes import boxes_of, matches, overlaps
from structprune.text.reading import ALPHABET, decoded, encoded, read


def maps(*spots, links=(), size=(40, 60)):
    """Maps with characters, and joins between some of them, as (top, left, bottom, right, score)."""
    result = np.zeros((2, *size), dtype=np.float32)
    for index, group in enumerate((spots, links)):
        for top, left, bottom, right, score in group:
            result[index, top:bottom, left:right] = score
    return result


def test_characters_that_are_joined_are_a_word():
    a, b = (10, 10, 16, 16, 0.9), (10, 20, 16, 26, 0.9)
    assert len(boxes_of(maps(a, b))) == 2
    (word,) = boxes_of(maps(a, b, links=[(12, 14, 14, 22, 0.8)]))
    # 6 of 16 × 6 places, 2 × 4 joins: of 96 places 80 are taken, so 2·√(80·6/96) = 4 more, 2 on each side
    assert word.tolist() == [2 * 8, 2 * 8, 2 * 28, 2 * 18]


def test_what_is_small_or_unsure_is_no_word():
    assert len(boxes_of(maps((10, 10, 13, 13, 0.9)))) == 0
    assert len(boxes_of(maps((10, 10, 20, 20, 0.6)))) == 0
    assert len(boxes_of(maps((10, 10, 20, 20, 0.6), (14, 14, 15, 15, 0.8)))) == 1
    assert boxes_of(maps()).shape == (0, 4)


def test_a_join_that_hangs_over_widens_no_box_and_boxes_end_with_the_image():
    plain = boxes_of(maps((10, 10, 20, 20, 0.9)))
    assert boxes_of(maps((10, 10, 20, 20, 0.9), links=[(14, 19, 15, 21, 0.9)]))[0, 2] <= plain[0, 2] + 2
    assert boxes_of(maps((0, 0, 40, 60, 0.9))).tolist() == [[0, 0, 120, 80]]


def test_overlaps_by_hand():
    a = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], dtype=np.float32)
    b = np.array([[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30]], dtype=np.float32)
    assert overlaps(a, b) == pytest.approx(np.array([[1 / 3, 1, 0], [0, 0, 0]]))


def test_boxes_are_paired_once_and_as_many_as_can_be():
    a = np.array([[0, 0, 10, 10], [2, 0, 12, 10]], dtype=np.float32)
    b = np.array([[1, 0, 11, 10], [4, 0, 14, 10]], dtype=np.float32)
    # a[1] is near to both; the first pairs with b[0] alone
    assert sorted(matches(a, b)) == [(0, 0), (1, 1)]
    assert len(matches(a, b[:1])) == 1
    assert matches(a, b[:0]) == []
    assert matches(a, b + 100) == []


def test_ctc():
    def scores(*numbers):
        return np.eye(len(ALPHABET) + 1)[list(numbers)]

    a, b = ALPHABET.index("a") + 1, ALPHABET.index("b") + 1
    assert read(scores(0, a, a, 0, a, b, b, 0)) == "aab"
    assert read(scores(0, 0)) == ""
    assert decoded(encoded("10 €: ab", 12)) == "10 €: ab"
    with pytest.raises(ValueError, match="has 4 characters, and there is room for 3"):
        encoded("abcd", 3)
