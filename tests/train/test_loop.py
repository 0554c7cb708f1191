"""The training loop learns, and an interrupted training ends as an uninterrupted one."""

import pytest
import torch
from torch import nn

from structprune.errors import RecipeError
from structprune.recipe import TrainSpec
from structprune.train import accuracy, agreement, fit, predict


def _data():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (192,), generator=generator)
    images = torch.randn(192, 1, 6, 6, generator=generator) + 2 * labels[:, None, None, None]
    return images, labels


def _model():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(128, 3)
    )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_it_learns(tmp_path, optimizer, schedule):
    images, labels = _data()
    spec = TrainSpec(epochs=8, batch_size=32, optimizer=optimizer, lr=0.01, schedule=schedule, warmup_epochs=1)
    model = _model().eval()
    before = accuracy(predict(model, images), labels)
    fit(model, images, labels, spec, seed=0, checkpoint=tmp_path / "c.safetensors")
    assert not model.training
    assert accuracy(predict(model, images), labels) > max(0.85, before)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path, optimizer):
    images, labels = _data()
    spec = TrainSpec(epochs=4, batch_size=32, optimizer=optimizer, lr=0.01, weight_decay=0.01)
    whole = fit(_model(), images, labels, spec, seed=5, checkpoint=tmp_path / "whole.safetensors")

    def interrupt(step, steps, shown):
        if step == steps // 2 + 2:  # within the third epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(_model(), images, labels, spec, seed=5, checkpoint=tmp_path / "part.safetensors", progress=interrupt)
    steps = []
    resumed = fit(
        _model(), images, labels, spec, seed=5, checkpoint=tmp_path / "part.safetensors",
        progress=lambda step, total, shown: steps.append(step),
    )  # fmt: skip
    assert steps[0] == 13  # two of the four epochs of six steps were done
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key


def test_too_large_a_batch_is_refused(tmp_path):
    images, labels = _data()
    with pytest.raises(RecipeError, match="batch_size=500 is more than the 192 training images"):
        fit(_model(), images, labels, TrainSpec(epochs=1, batch_size=500, lr=1), seed=0, checkpoint=tmp_path / "c")


def test_agreement_and_divergence_by_hand():
    dense = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    slim = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    same, divergence = agreement(dense, slim)
    assert same == 0.5
    p, q = dense.softmax(1), slim.softmax(1)
    assert divergence == pytest.approx(float((p * (p / q).log()).sum() / 2), rel=1e-6)
    assert agreement(dense, dense) == (1.0, 0.0)
