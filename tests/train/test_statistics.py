"""BatchNorm statistics taken anew in training, against PyTorch's own way and by hand."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from structprune.calibration import Batch
from structprune.ops import Inputs
from structprune.train.statistics import reestimate_statistics


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    ).train()


def batches(number=4):
    images = torch.randn(number * 16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return [Batch(Inputs((part,), {})) for part in images.split(16)]


def test_statistics_are_those_of_pytorch_and_nothing_else_changes():
    model, other = network(), network()
    reestimate_statistics(model, batches())
    update_bn([batch.inputs.args[0] for batch in batches()], other)
    for key, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key
    assert model[1].momentum == 0.3
    assert all(module.training for module in model.modules())


def test_dropout_is_off_and_frozen_statistics_stay():
    model = nn.Sequential(nn.Dropout(0.5), *network()).train()
    frozen = model[5].eval()
    expected = copy.deepcopy(model.state_dict())
    reestimate_statistics(model, batches())
    images = torch.cat([batch.inputs.args[0] for batch in batches()])
    torch.testing.assert_close(model[2].running_mean, model[1](images).mean((0, 2, 3)))
    assert torch.equal(frozen.running_mean, expected["5.running_mean"])
    assert not frozen.training
    assert model[0].training


def test_it_ends_with_the_samples_that_are_enough():
    drawn = []
    reestimate_statistics(network(), (drawn.append(batch) or batch for batch in batches()), samples=32)
    assert len(drawn) == 2
