"""Training with BatchNorms that keep their statistics."""

import pytest
import torch
from timm.utils.model import freeze_batch_norm_2d
from torch import nn
from torch.utils.data import TensorDataset

from structprune.errors import RecipeError
from structprune.train import fit
from structprune.train.spec import TrainSpec

from .small_training import equal, interrupted, network, samples

SPEC = {"epochs": 2, "batch_size": 48, "opt": "sgd", "lr": 0.05, "methods": ["frozen_statistics"]}


def trained(model, folder, methods=("frozen_statistics",)):
    spec = TrainSpec(**{**SPEC, "methods": [*methods]})
    return fit(model, TensorDataset(*samples()), spec, seed=5, checkpoint=folder / "whole")


def with_statistics():
    model = network()
    model[1].running_mean += 0.3
    model[1].running_var *= 1.7
    return model


def test_statistics_stay_and_everything_else_learns(tmp_path):
    before, after = with_statistics(), trained(with_statistics(), tmp_path)
    assert torch.equal(after[1].running_mean, before[1].running_mean)
    assert torch.equal(after[1].running_var, before[1].running_var)
    for name, tensor in after.named_parameters():
        assert not torch.equal(tensor, before.get_parameter(name)), name


def test_it_trains_as_timms_frozen_batchnorms_do(tmp_path):
    ours, theirs = with_statistics(), freeze_batch_norm_2d(with_statistics())
    for parameter in ours[1].parameters():
        parameter.requires_grad_(False)  # timm's module does not train its scale and shift
    ours, theirs = trained(ours, tmp_path / "ours"), trained(theirs, tmp_path / "theirs", methods=())
    assert torch.allclose(theirs[0].weight, ours[0].weight, atol=1e-6)
    assert torch.allclose(theirs[5].weight, ours[5].weight, atol=1e-6)
    assert not torch.allclose(theirs[0].weight, trained(with_statistics(), tmp_path / "free", ())[0].weight, atol=1e-3)


def test_interrupted_it_ends_in_the_same_weights(tmp_path):
    assert equal(trained(network(), tmp_path), interrupted(TrainSpec(**SPEC), tmp_path, at=6))


def test_by_itself_it_gives_no_loss_for_data_without_labels():
    assert TrainSpec(**SPEC).needs_labels
    assert not TrainSpec(**{**SPEC, "methods": ["distill", "frozen_statistics"]}).needs_labels


def test_a_network_without_batchnorms_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="frozen_statistics needs BatchNorms"):
        trained(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), tmp_path)
