"""Measuring by batches gives what measuring all at once gives, of modules and of ONNX files alike."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from structprune.errors import ModelError, RecipeError
from structprune.export import export_onnx
from structprune.quality_judge import Judge
from structprune.tasks import Metric
from structprune.tasks.building import make_task
from structprune.tasks.classification import Classification
from structprune.tasks.metrics import Mean
from structprune.train import accuracy, agreement, predict


def _net(seed, classes=7):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, classes)).eval()


IMAGES, LABELS = torch.randn(75, 3, 8, 8), torch.randint(0, 7, (75,))


@pytest.mark.parametrize("kept", [2**28, 1000])
def test_the_numbers_are_those_of_all_outputs_at_once(monkeypatch, kept):
    monkeypatch.setattr("structprune.quality_judge.KEPT", kept)
    dense, slim = _net(0), _net(1)
    a, b = predict(dense, IMAGES), predict(slim, IMAGES)
    judge = Judge(make_task(), TensorDataset(IMAGES, LABELS), dense)
    passes = []
    dense.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(2):
        found = judge(slim)
        assert (found.metric, found.value, found.n) == ("accuracy", accuracy(b, LABELS), 75)
        both = (a.argmax(1) == LABELS) & (b.argmax(1) == LABELS)
        retained = {"still right": int(both.sum()) / int((a.argmax(1) == LABELS).sum())}
        assert found.likeness == dict(zip(("agreement", "kl"), agreement(a, b), strict=True)) | retained
        assert found.others == {"top-5 accuracy": float((b.topk(5).indices == LABELS[:, None]).any(1).float().mean())}
    batches = 3
    assert len(passes) == (2 * batches if kept == 1000 else batches)
    assert judge.dense.value == accuracy(a, LABELS)
    assert judge.dense.likeness == {"agreement": 1.0, "kl": 0.0, "still right": 1.0}
    blind = Judge(make_task(), TensorDataset(IMAGES), dense, labelled=False)
    assert (blind(slim).metric, blind(slim).value) == ("agreement", agreement(a, b)[0])
    assert "still right" not in blind(slim).likeness
    assert blind(slim).drop_from(blind.dense) == pytest.approx(1 - agreement(a, b)[0])
    assert not slim.training


def test_a_loader_and_an_onnx_session_are_measured_alike(tmp_path):
    dense, slim = _net(0), _net(1)
    path = export_onnx(slim, IMAGES[:2], tmp_path / "slim.onnx")
    judge = Judge(make_task(), DataLoader(TensorDataset(IMAGES, LABELS), 20), dense)
    ours, theirs = judge(slim), judge(path)
    assert ours.n == theirs.n == 75
    assert ours.value == theirs.value
    assert theirs.likeness["kl"] == pytest.approx(ours.likeness["kl"], rel=1e-4)
    with pytest.raises(RecipeError, match="there is no ONNX file"):
        judge(tmp_path / "none.onnx")


class _Two(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return {"aux": self.two(x), "logits": self.one(x).mean((2, 3))}


def test_outputs_in_a_dict_are_found_again_in_an_onnx_file(tmp_path):
    dense, slim = _Two(0).eval(), _Two(1).eval()
    path = export_onnx(slim, IMAGES[:2], tmp_path / "slim.onnx")
    judge = Judge(make_task(), TensorDataset(IMAGES, LABELS % 4), dense)
    assert judge(path).value == judge(slim).value
    other = export_onnx(_net(2), IMAGES[:2], tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="gives 1 tensors, and the dense network another number"):
        judge(other)


def test_dense_maps_are_measured_without_being_held(monkeypatch):
    monkeypatch.setattr("structprune.quality_judge.KEPT", 0)
    monkeypatch.setattr("structprune.tasks.classification.HELD", 0)
    task = make_task("embedding")
    dense, slim = nn.Conv2d(3, 4, 1).eval(), nn.Conv2d(3, 4, 1).eval()
    found = Judge(task, TensorDataset(IMAGES), dense, labelled=False, batch_size=10)(slim)
    a, b = (predict(net, IMAGES).flatten(1).double() for net in (dense, slim))
    wanted = ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()
    assert found.value == pytest.approx(float(wanted), rel=1e-5)
    assert np.isfinite(found.value)


def test_data_that_can_t_be_judged():
    net = _net(0)
    for data, labelled, message in (
        (TensorDataset(IMAGES), True, "the held-out data has no labels: set data.labels=false"),
        (TensorDataset(IMAGES[:0], LABELS[:0]), True, "there is no held-out data"),
        (TensorDataset(IMAGES, LABELS + 1), True, "7 classes for 32 images"),
    ):
        with pytest.raises(RecipeError, match=message):
            Judge(make_task(), data, net, labelled=labelled)(net)


def test_a_loader_that_shuffles_is_compared_image_by_image():
    dense, same = _net(0), _net(0)
    torch.manual_seed(0)
    judge = Judge(make_task(), DataLoader(TensorDataset(IMAGES, LABELS), 16, shuffle=True), dense)
    assert judge.dense.likeness["agreement"] == judge(same).likeness["agreement"] == 1.0
    assert judge.dense.value == judge(same).value


def test_every_batch_of_labels_is_checked():
    wrong = LABELS.clone()
    wrong[-1] = 7
    with pytest.raises(RecipeError, match=r"7 classes for .* from 0 to 6"):
        Judge(make_task(), TensorDataset(IMAGES, wrong), _net(0)).dense  # noqa: B018


def test_what_a_task_or_a_network_raises_is_one_line():
    class Fails(Classification):
        def metrics(self):
            return [Metric("fails", lambda: Mean(lambda a, b: a @ b))]

    with pytest.raises(RecipeError, match="task classification: RuntimeError: ") as error:
        Judge(Fails(), TensorDataset(IMAGES, LABELS), _net(0)).dense  # noqa: B018
    assert "\n" not in str(error.value)
    with pytest.raises(RecipeError, match="the dense network does not run on the held-out data: RuntimeError"):
        Judge(make_task(), TensorDataset(IMAGES[:, :2], LABELS), _net(0)).dense  # noqa: B018
