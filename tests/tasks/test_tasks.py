"""Tasks against numbers worked out by hand or in NumPy; and how batches become inputs."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from structprune.calibration.batches import Batch
from structprune.calibration.rebatching import rebatched
from structprune.criteria.memory_bounds import portions
from structprune.errors import RecipeError
from structprune.ops import Inputs
from structprune.tasks import TASKS, Metric, Task
from structprune.tasks.building import OwnTaskSpec, make_task
from structprune.tasks.metrics import Mean
from structprune.tasks.task import TaskKind


def measured(metrics, batches):
    tallies = {metric.name: metric.make() for metric in metrics}
    for outputs, compared in batches:
        for tally in tallies.values():
            tally.update(outputs, compared)
    return {name: tally.compute() for name, tally in tallies.items()}


def test_every_task_is_listed_with_what_it_is():
    names = ["classification", "detection", "embedding", "regression", "segmentation"]
    assert list(TASKS) == [*names, "text_detection", "text_recognition"]
    assert all(kind.description and kind.name == name for name, kind in TASKS.items())
    with pytest.raises(RecipeError, match="unknown task 'segmentatoin': did you mean segmentation"):
        make_task("segmentatoin")
    with pytest.raises(ValueError, match="a task named 'embedding' is registered already"):
        TASKS.add(TaskKind("embedding", "", TASKS["embedding"].spec, lambda spec: Task()))


def test_classification_top_five_only_where_there_are_more_classes():
    task = make_task()
    scores, labels = torch.randn(40, 9), torch.randint(0, 9, (40,))
    found = measured(task.metrics(), [(scores[:16], labels[:16]), (scores[16:], labels[16:])])
    order = scores.argsort(1, descending=True)
    assert found["accuracy"] == float((order[:, 0] == labels).float().mean())
    assert found["top-5 accuracy"] == float((order[:, :5] == labels[:, None]).any(1).float().mean())
    assert measured(task.metrics(), [(scores[:, :4], labels % 4)])["top-5 accuracy"] is None
    assert torch.equal(task.loss({"logits": scores}, labels), F.cross_entropy(scores, labels))


@pytest.mark.parametrize("limit", [2**26, 100])
def test_agreement_and_divergence(monkeypatch, limit):
    monkeypatch.setattr("structprune.tasks.classification.HELD", limit)
    dense, slim = torch.randn(50, 7), torch.randn(50, 7)
    found = measured(make_task().likeness(), [(slim[i : i + 16], dense[i : i + 16]) for i in range(0, 50, 16)])
    p, q = dense.double().softmax(1), slim.double().softmax(1)
    assert found["kl"] == pytest.approx(float((p * (p / q).log()).sum() / 50), rel=1e-5)
    assert found["agreement"] == float((dense.argmax(1) == slim.argmax(1)).float().mean())


def test_targets_that_do_not_fit_are_said():
    for name, outputs, targets, message in (
        ("classification", torch.randn(2, 3), torch.tensor([0, 3]), "3 classes for 2 images: .* from 0 to 2"),
        ("classification", torch.randn(2, 3, 4), torch.tensor([0, 1]), r"class scores of shape .*\(2, 3, 4\)"),
        ("classification", {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, torch.tensor([0, 1]), "name it logits"),
        ("regression", torch.randn(2, 3), torch.randn(2, 4), r"targets are \(2, 4\) and outputs \(2, 3\)"),
        ("embedding", torch.randn(2, 3), torch.tensor([0, 1]), r"targets are \(2,\) and embeddings \(2, 3\)"),
    ):
        with pytest.raises(RecipeError, match=message):
            make_task(name).check(outputs, targets)
    task = make_task(TASKS["segmentation"].spec(num_classes=4))
    with pytest.raises(RecipeError, match=r"a mask holds class 9, and the network gives 4"):
        task.check(torch.randn(1, 4, 2, 2), torch.full((1, 2, 2), 9))
    with pytest.raises(RecipeError, match=r"needs scores of shape \(samples, 4, height, width\)"):
        task.check(torch.randn(1, 5, 2, 2), torch.zeros(1, 2, 2))


def test_segmentation_by_the_confusion_matrix():
    pytest.importorskip("torchmetrics")
    task = make_task(TASKS["segmentation"].spec(num_classes=4, ignore_index=255))
    scores, masks = torch.randn(6, 4, 5, 5), torch.randint(0, 3, (6, 5, 5))  # class 3 is only ever guessed
    masks[0, :2] = 255
    found = measured(task.metrics(), [({"out": scores[:4]}, masks[:4]), ({"out": scores[4:]}, masks[4:])])
    guess, counts = scores.argmax(1).numpy(), (masks != 255).numpy()
    guess, truth = guess[counts], masks.numpy()[counts]
    union = [((guess == c) | (truth == c)).sum() for c in range(4)]
    ious = [((guess == c) & (truth == c)).sum() / u for c, u in enumerate(union) if u]
    assert found["miou"] == pytest.approx(np.mean(ious), rel=1e-6)
    assert found["pixel accuracy"] == pytest.approx((guess == truth).mean(), rel=1e-6)
    other = torch.randn(6, 4, 5, 5)
    theirs = other.argmax(1).numpy()[counts] == truth
    kept = measured(task.retention(), [(scores, (other, masks))])["still right"]
    assert kept == pytest.approx(((guess == truth) & theirs).sum() / theirs.sum(), rel=1e-6)
    small = torch.randn(2, 4, 3, 3)
    wanted = F.cross_entropy(F.interpolate(small, (5, 5), mode="bilinear"), masks[:2], ignore_index=255)
    assert torch.equal(task.loss(small, masks[:2]), wanted)


def test_a_batch_without_a_pixel_that_counts_teaches_nothing():
    task = make_task(TASKS["segmentation"].spec(num_classes=3))
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = task.loss(scores, torch.full((2, 4, 4), 255))
    loss.backward()
    assert (loss.item(), scores.grad.abs().max().item()) == (0, 0)


def test_targets_that_are_no_numbers_are_said():
    for name, shape in (("regression", (2, 3, 4)), ("embedding", (2, 3))):
        targets = torch.randn(shape)
        make_task(name).check(torch.randn(shape), targets)
        targets.view(-1)[-1] = float("nan")
        with pytest.raises(RecipeError, match=f"targets of task {name} hold NaN or infinite values"):
            make_task(name).check(torch.randn(shape), targets)


def test_segmentation_is_compared_pixel_by_pixel():
    task = make_task(TASKS["segmentation"].spec(num_classes=3))
    dense, slim = torch.randn(4, 3, 6, 6), torch.randn(4, 3, 6, 6)
    found = measured(task.likeness(), [(slim[:3], dense[:3]), (slim[3:], dense[3:])])
    p, q = dense.double().softmax(1), slim.double().softmax(1)
    assert found["kl"] == pytest.approx(float((p * (p / q).log()).sum() / (4 * 36)), rel=1e-5)
    assert found["agreement"] == pytest.approx(float((dense.argmax(1) == slim.argmax(1)).float().mean()))
    labelled = task.importance_loss(dense, dense.argmax(1))
    assert torch.equal(task.importance_loss(dense, None), labelled)


def test_maps_of_several_sizes_are_compared_pixel_by_pixel():
    task = make_task(TASKS["segmentation"].spec(num_classes=3))
    pairs = [(torch.randn(1, 3, h, w), torch.randn(1, 3, h, w)) for h, w in ((6, 6), (4, 9))]
    found = measured(task.likeness(), pairs)
    total = 0.0
    for slim, dense in pairs:
        p, q = dense.double().softmax(1), slim.double().softmax(1)
        total += float((p * (p / q).log()).sum())
    assert found["kl"] == pytest.approx(total / 72, rel=1e-5)


def test_shares_of_classes_are_labels_too():
    task, scores = make_task(), torch.randn(8, 7)
    labels = torch.randint(0, 7, (8,))
    shares = 0.7 * F.one_hot(labels, 7) + 0.3 * F.one_hot((labels + 1) % 7, 7)
    task.check(scores, shares)
    assert measured(task.metrics(), [(scores, shares)]) == measured(task.metrics(), [(scores, labels)])
    assert torch.equal(task.loss(scores, shares), F.cross_entropy(scores, shares))
    assert torch.equal(task.importance_loss(scores, shares), F.cross_entropy(scores, shares, reduction="sum"))
    assert torch.equal(task.importance_loss((scores, scores.mean()), labels), 8 * task.loss((scores, None), labels))
    with pytest.raises(RecipeError, match=r"the labels are torch.float32 of shape \(8, 6\)"):
        task.check(scores, shares[:, :6])


def test_regression_by_its_definition():
    pytest.importorskip("torchmetrics")
    task = make_task(TASKS["regression"].spec(data_range=2.0, peaks=1.0))
    outputs, targets = torch.rand(4, 2, 6, 6), torch.rand(4, 2, 6, 6)
    targets[:, :, 2, 3] = 5.0
    outputs[:2, :, 2, 4] = 5.0  # one pixel off
    outputs[2:, :, 0, 0] = 5.0
    found = measured(task.metrics(), [(outputs[:3], targets[:3]), (outputs[3:], targets[3:])])
    error = float((outputs - targets).square().mean())
    assert found["psnr"] == pytest.approx(10 * np.log10(4.0 / error), rel=1e-5)
    assert found["peaks"] == 0.5


def test_relative_error_and_cosine():
    a, b = torch.randn(9, 3, 4), torch.randn(9, 3, 4)
    found = measured(make_task("regression").likeness(), [(a[:5], b[:5]), (a[5:], b[5:])])
    assert found["relative error"] == pytest.approx(float((a - b).norm() / b.norm()), rel=1e-5)
    found = measured(make_task("embedding").likeness(), [(a[:5], b[:5]), (a[5:], b[5:])])
    x, y = a.flatten(1), b.flatten(1)
    assert found["cosine with dense"] == pytest.approx(
        float(((x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))).mean()), rel=1e-5
    )
    assert make_task("embedding").loss(x, x).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(RecipeError, match="gradients of task embedding need labels"):
        make_task("embedding").importance_loss(x, None)


def test_detection_by_hand():
    pytest.importorskip("torchmetrics")
    pytest.importorskip("pycocotools")
    task = make_task("detection")
    box, other = [10.0, 10, 30, 30], [40.0, 40, 60, 60]
    truth = [{"boxes": torch.tensor([box, other]), "labels": torch.tensor([1, 2])}]
    found = [{"boxes": torch.tensor([box]), "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}]
    result = measured(task.metrics(), [(found, truth)])
    assert result["map50"] == pytest.approx(0.5)  # class 1 found, class 2 not at all
    unsure = [{"boxes": torch.tensor([box, other]), "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.2])}]
    assert measured(task.likeness(), [(found, unsure)])["map50 with dense"] == pytest.approx(1.0)
    images = [torch.rand(3, 8, 8), torch.rand(3, 9, 7)]
    batch = task.batch(task.collate([(images[0], truth[0]), (images[1], truth[0])]))
    assert task.count(batch) == 2
    assert [x.shape for x in batch.inputs.args[0]] == [x.shape for x in images]
    assert len(task.batch(([*images], truth * 2), training=True).inputs.args) == 2
    same = task.batch(task.collate([(images[0], truth[0])] * 3))
    assert (same.inputs.args[0].shape, task.count(same)) == ((3, 3, 8, 8), 3)
    assert task.batch(task.collate([images[0]] * 2)).labels is None
    together = {key: torch.stack([value, value]) for key, value in found[0].items()}
    assert measured(task.metrics(), [(together, truth * 2)])["map50"] == pytest.approx(0.5)
    nothing = [{key: value[:0] for key, value in found[0].items()}]
    assert measured(task.likeness(), [(found, nothing)])["map50 with dense"] is None
    with pytest.raises(RecipeError, match="needs a dict of boxes, scores and labels, or a list of them"):
        measured(task.metrics(), [(torch.ones(2, 3), truth)])


def test_boxes_are_never_cut_as_rows():
    batches = [
        Batch(Inputs((torch.ones(2, 1, 4, 4),), {}), [{"boxes": torch.ones(2, 4)}, {"boxes": torch.ones(3, 4)}])
        for _ in range(2)
    ]
    assert rebatched(batches, 3) == batches
    assert list(portions(batches[0], 1)) == batches[:1]


def test_batches_of_all_kinds_become_inputs_and_targets():
    task, x, y = Task(), torch.ones(2, 3), torch.zeros(2)
    assert task.batch(x).labels is None
    assert task.batch([x]).inputs.args == (x,)
    assert task.batch((x, y)).labels is y
    both = task.batch((x, y, y))
    assert len(both.inputs.args) == 2
    words = task.batch({"input_ids": x, "labels": y})
    assert (set(words.inputs.kwargs), words.labels is y) == ({"input_ids"}, True)
    nested = task.batch(({"a": x}, y))
    assert (set(nested.inputs.kwargs), nested.labels is y) == ({"a"}, True)
    with pytest.raises(RecipeError, match="the data gives a str"):
        task.batch("text")


OWN = """
import torch
from structprune.tasks import Metric, Task
from structprune.tasks.metrics import Mean

class Signs(Task):
    name = "signs"
    def __init__(self, weight=1.0):
        self.weight = weight
    def loss(self, outputs, targets):
        return self.weight * (outputs - targets).abs().mean()
    def metrics(self):
        return [Metric("sign", lambda: Mean(lambda a, b: (a.sign() == b.sign()).float().flatten()))]
    def likeness(self):
        return self.metrics()

class Other: pass
"""


def test_a_task_of_the_users_own(tmp_path):
    path = tmp_path / "own_task_of_tests.py"
    path.write_text(OWN)
    task = make_task(OwnTaskSpec(name=f"{path}:Signs", kwargs={"weight": 2.0}))
    assert task.loss(torch.ones(2), torch.zeros(2)) == 2
    assert measured(task.metrics(), [(torch.tensor([1.0, -1]), torch.tensor([2.0, 2]))]) == {"sign": 0.5}
    with pytest.raises(RecipeError, match="makes a Other: give a class that extends"):
        make_task(OwnTaskSpec(name=f"{path}:Other"))
    with pytest.raises(RecipeError, match="failed: TypeError"):
        make_task(OwnTaskSpec(name=f"{path}:Signs", kwargs={"wight": 2.0}))
    assert isinstance(Metric("x", lambda: Mean(lambda a, b: a)), Metric)
