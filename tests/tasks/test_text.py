"""What the text tasks measure, on maps and scores made by hand, and their data."""

import numpy as np
import pytest
import torch

from structprune.data import load_data
from structprune.data.identity import data_digest
from structprune.data.spec import TextLinesSpec, TextPagesSpec
from structprune.errors import RecipeError
from structprune.networks.text_detector import TextDetector
from structprune.networks.text_recogniser import ALPHABET, TextRecogniser
from structprune.quality_judge import Judge
from structprune.tasks.building import make_task
from structprune.text.reading import decoded, encoded


def measured(metrics, outputs, compared):
    tallies = {metric.name: metric.make() for metric in metrics}
    for tally in tallies.values():
        tally.update(outputs, compared)
    return {name: tally.compute() for name, tally in tallies.items()}


def squares(*corners):
    """Maps of one image with a sure character of 10×10 places at each corner (top, left)."""
    maps = torch.zeros(1, 2, 60, 60)
    for top, left in corners:
        maps[0, 0, top : top + 10, left : left + 10] = 1.0
    return maps


def test_boxes_found_and_kept():
    task = make_task("text_detection")
    one, two = squares((5, 5)), squares((5, 5), (40, 40))
    # 2·√10 = 6.3, so half of 6 more places on each side
    truth = torch.tensor([[[4.0, 4.0, 36.0, 36.0], [200, 200, 210, 210], [0, 0, 0, 0]]])
    assert measured(task.metrics(), two, truth) == {"words found": 0.5, "boxes right": 0.5}
    assert measured(task.retention(), one, (two, truth)) == {"still right": 1.0}  # what goes is no true word
    assert measured(task.retention(), squares((40, 40)), (two, truth)) == {"still right": 0.0}
    assert measured(task.retention(), two, (squares(), truth)) == {"still right": None}
    alike = measured(task.likeness(), one, two)
    assert (alike["boxes kept"], alike["boxes shared"]) == (0.5, 1.0)
    assert alike["relative error"] == pytest.approx(0.5**0.5)
    assert measured(task.likeness(), two, squares())["boxes kept"] is None
    assert float(task.importance_loss(two, None)) == 100
    with pytest.raises(RecipeError, match=r"needs maps of shape \(samples, 2, height, width\)"):
        task.importance_loss(torch.zeros(1, 3, 4, 4), None)
    with pytest.raises(RecipeError, match="give boxes of shape"):
        task.check(two, torch.zeros(2))


def test_maps_are_like_the_dense_networks_by_their_values_and_by_the_sides_of_thresholds_they_are_on():
    task, dense = make_task("text_detection"), torch.zeros(2, 2, 4, 4)
    dense[:, :, 1:3, 1:3] = 0.8
    below = dense.clone()
    below[0, 0, 1, 1] = 0.65  # no sure character any more, and a character still
    values = 0.15**2 / 64 / float(dense.var(correction=0))
    sides = [1 / (1 + np.exp(-(np.array([0.8, 0.65, 0.0]) - threshold) / 0.05)) for threshold in (0.4, 0.7)]
    errors = [(a - b) ** 2 / 32 / (0.25 * 0.75 * (a - rest) ** 2) for a, b, rest in sides]
    assert float(task.imitation_loss(below, dense)) == pytest.approx(values + sum(errors) / 3, rel=1e-4)
    assert errors[1] > 10 * values
    empty = torch.zeros(1, 2, 4, 4)  # a page without text
    assert 0 < float(task.imitation_loss(empty + 0.01, empty)) < 1
    assert float(task.imitation_loss(empty, empty)) == 0


def scores(*texts):
    """Scores that are read as these texts, which repeat no character."""
    result = torch.zeros(len(texts), 8, len(ALPHABET) + 1)
    result[..., 0] = 1
    for line, text in zip(result, texts, strict=True):
        for place, number in enumerate(encoded(text, len(text))):
            line[place, number] = 9
    return result


def test_characters_and_lines_read():
    task = make_task("text_recognition")
    truth = torch.from_numpy(np.stack([encoded("word", 6), encoded("xyz", 6)]))
    ours = scores("ward", "xyz")
    task.check(ours, truth)
    assert measured(task.metrics(), ours, truth) == {"characters": 1 - 1 / 7, "lines": 0.5}
    alike = measured(task.likeness(), ours, scores("ward", "xy"))
    assert (alike["same characters"], alike["same lines"]) == (1 - 1 / 6, 0.5)
    assert measured(task.retention(), ours, (scores("word", "xyz"), truth)) == {"still right": 0.5}
    assert measured(task.retention(), ours, (scores("ward", "xyz"), truth)) == {"still right": 1.0}
    right, wrong = (task.loss(20 * scores(*texts), truth) for texts in (("word", "xyz"), ("ward", "xyz")))
    assert float(right) < 0.01 < float(wrong)
    assert float(task.imitation_loss(ours, ours)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(RecipeError, match="give numbers of shape"):
        task.check(ours, truth.float())


@pytest.mark.parametrize(
    ("spec", "network", "task"),
    [
        (
            TextPagesSpec(source="text_pages", image_size=64, pages=3, train_pages=5, calibration={"images": 4}),
            TextDetector(1 / 32),
            0,
        ),
        (
            TextLinesSpec(source="text_lines", width=64, lines=3, train_lines=5, calibration={"images": 4}),
            TextRecogniser(16, 4),
            1,
        ),
    ],
    ids=["pages", "lines"],
)
def test_rendered_text_is_data_of_a_run(spec, network, task):
    task = make_task(("text_detection", "text_recognition")[task])
    data, again, other = (load_data(spec, network, seed, task=task, choosing=True) for seed in (0, 0, 1))
    assert data_digest(data) == data_digest(again) != data_digest(other)
    assert torch.equal(data.test.tensors[0], other.test.tensors[0])  # all seeds are measured on the same
    assert not torch.equal(data.calibration[0].inputs.args[0], other.calibration[0].inputs.args[0])
    assert sum(batch.images for batch in data.calibration) == 4
    assert len(data.test) == len(data.validation) == 3
    assert len(data.train) == 5
    torch.manual_seed(0)
    first, second = data.train[0], data.train[0]
    assert len(first) == (1, 2)[task.name == "text_recognition"]  # by boxes no network is trained
    assert not torch.equal(first[0], second[0])
    torch.manual_seed(0)
    assert torch.equal(first[0], data.train[0][0])
    quality = Judge(task, data.test, network)(network)
    assert quality.metric == task.metrics()[0].name
    assert quality.likeness["relative error"] == 0


def test_labels_are_what_is_written():
    spec = TextLinesSpec(source="text_lines", width=256, lines=4)
    data = load_data(spec, TextRecogniser(16, 4), 0, task=make_task("text_recognition"))
    texts = [decoded(label.numpy()) for label in data.test.tensors[1]]
    assert all(texts)
    assert data.test.tensors[0].shape == (4, 1, 64, 256)
    assert float(data.test.tensors[0].abs().max()) <= 1


def test_data_that_do_not_fit_are_said():
    with pytest.raises(RecipeError, match="source=text_pages has 3 channels and the model wants 1"):
        load_data(TextPagesSpec(source="text_pages"), TextRecogniser(16, 4), 0)
    with pytest.raises(ValueError, match="calibration of text_pages is rendered"):
        TextPagesSpec(source="text_pages", calibration={"images": 4, "augment": True})
