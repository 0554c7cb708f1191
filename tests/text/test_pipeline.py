"""A page read by networks that know the answer: crops are where boxes are, and words are compared in their place."""

import numpy as np

from structprune.networks.text_recogniser import ALPHABET
from structprune.text.pipeline import Reading, read_page, words_shared
from structprune.text.reading import encoded


def test_each_word_is_cut_out_and_read():
    pixels = np.full((80, 120, 3), 255, np.uint8)
    pixels[8:36, 8:36] = 40
    pixels[8:36, 64:92] = 90
    maps = np.zeros((1, 2, 40, 60), np.float32)
    maps[0, 0, 6:16, 6:16] = maps[0, 0, 6:16, 34:44] = 1  # half as large, and narrower than the ink
    lines = []

    def recognise(batch):
        lines.append(batch)
        return np.eye(len(ALPHABET) + 1, dtype=np.float32)[encoded(f"w{len(lines)}", 2)][None]

    reading = read_page(pixels, lambda images: maps, recognise, width=128)
    assert reading.words == ("w1", "w2")
    assert reading.boxes[:, ::2].mean(1).tolist() == [22, 78]
    assert [line.shape for line in lines] == [(1, 1, 64, 128)] * 2
    middles = [float(line[0, 0, 32, 32]) for line in lines]  # the lines are squares, enlarged to 64×64
    assert np.allclose(middles, [40 / 127.5 - 1, 90 / 127.5 - 1], atol=0.02)
    assert reading.seconds == reading.finding + reading.reading


def test_a_page_without_words():
    reading = read_page(np.zeros((32, 32, 3), np.uint8), lambda images: np.zeros((1, 2, 16, 16)), None, width=64)
    assert reading.words == ()
    assert len(words_shared(reading, np.zeros((0, 4)), ())) == 0


def test_words_are_shared_where_place_and_text_are():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], dtype=np.float32)
    reading = Reading(boxes, ("a", "b", "c"), 0, 0)
    assert len(words_shared(reading, boxes, ("a", "b", "x"))) == 2
    assert len(words_shared(reading, boxes[[1, 0, 2]], ("a", "b", "c"))) == 1
    assert len(words_shared(reading, boxes + 100, ("a", "b", "c"))) == 0
