"""Methods that push units to zero while training, against their definitions on networks that are coupled by hand."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from structprune.errors import RecipeError
from structprune.recipe import TrainSpec
from structprune.train import fit
from tests.train.small_training import equal, interrupted, network, samples


class Residual(nn.Module):
    """conv1 and conv2 meet in a sum: their BatchNorms are coupled; `inner` is alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.inner, self.bn0 = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)
        for norm in (self.bn1, self.bn0, self.bn2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = x + self.bn2(self.conv2(self.bn0(self.inner(x)).relu()))
        return self.head(x.mean((2, 3)))


def one_update(folder, methods, lr=0.5):
    folder.mkdir()
    spec = TrainSpec(epochs=1, batch_size=192, opt="momentum", momentum=0.0, lr=lr, sched="constant", methods=methods)
    return fit(Residual(), TensorDataset(*samples()), spec, seed=0, checkpoint=folder / "c")


def test_slimming_moves_scales_by_their_sign_and_coupled_ones_as_one(tmp_path):
    start, without = Residual(), one_update(tmp_path / "a", [])
    sparse = one_update(tmp_path / "b", [{"method": "slimming", "strength": 0.01}])
    gamma1, gamma2 = start.bn1.weight, start.bn2.weight
    norm = (gamma1**2 + gamma2**2).sqrt()
    for name, push in (("bn0", start.bn0.weight.sign()), ("bn1", gamma1 / norm), ("bn2", gamma2 / norm)):
        change = getattr(without, name).weight - getattr(sparse, name).weight
        torch.testing.assert_close(change, 0.5 * 0.01 * push, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(without.conv1.weight, sparse.conv1.weight)
    half = one_update(tmp_path / "c", [{"method": "slimming", "start": 0.5}], lr=1e-9)
    torch.testing.assert_close(half.bn0.weight, torch.full((5,), 0.5))


def test_group_lasso_is_the_proximal_step_over_coupled_filters(tmp_path):
    strength = 0.05
    without = one_update(tmp_path / "a", [])
    sparse = one_update(tmp_path / "b", [{"method": "group_lasso", "strength": strength}])
    size = (without.conv1.weight.square().sum((1, 2, 3)) + without.conv2.weight.square().sum((1, 2, 3))).sqrt()
    count = 9 + 9 * 5
    share = (1 - 0.5 * strength * count**0.5 / size).clamp_min(0)
    for name in ("conv1", "conv2"):
        expected = getattr(without, name).weight * share[:, None, None, None]
        torch.testing.assert_close(getattr(sparse, name).weight, expected, rtol=1e-4, atol=1e-6)
    strong = one_update(tmp_path / "c", [{"method": "group_lasso", "strength": 5.0}])
    assert not strong.conv1.weight.any()
    assert not strong.inner.weight.any()
    assert strong.head.weight.any()  # its outputs are classes


def test_polarization_is_its_definition_over_all_scales(tmp_path):
    options = {"method": "polarization", "strength": 0.01, "sparsity": 1.2, "ceiling": 2.0}
    without, sparse = one_update(tmp_path / "a", []), one_update(tmp_path / "b", [options])
    start = Residual()
    coupled = ((start.bn1.weight**2 + start.bn2.weight**2) / 2).sqrt()
    gamma = torch.cat([start.bn0.weight.abs(), coupled, coupled])  # both of a coupled pair count
    (1.2 * gamma.sum() - (gamma - gamma.mean()).abs().sum()).backward()
    for name in ("bn0", "bn1", "bn2"):
        change = getattr(without, name).weight - getattr(sparse, name).weight
        torch.testing.assert_close(change, 0.5 * 0.01 * getattr(start, name).weight.grad, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(without.conv1.weight, sparse.conv1.weight)
    low = one_update(tmp_path / "c", [{"method": "polarization", "start": 0.5, "ceiling": 0.5}])
    assert max(norm.weight.abs().max().item() for norm in (low.bn0, low.bn1, low.bn2)) <= 0.5
    with pytest.raises(RecipeError, match="keeps BatchNorm scales within 1, and the network has one of 1"):
        one_update(tmp_path / "d", ["polarization"])


def test_polarization_parts_scales(tmp_path):
    options = {"method": "polarization", "strength": 0.02, "sparsity": 1.0, "ceiling": 2.0}
    spec = TrainSpec(
        epochs=40, batch_size=96, opt="momentum", momentum=0.0, lr=0.1, sched="constant", methods=[options]
    )
    sparse = fit(Residual(), TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c")
    scales, start = sparse.bn0.weight.abs(), Residual().bn0.weight
    assert scales.min() < 0.6 * start.min()
    assert scales.max() - scales.min() > 1.3 * (start.max() - start.min())


@pytest.mark.parametrize("method", ["slimming", "group_lasso", "polarization"])
def test_an_interrupted_training_ends_the_same(tmp_path, method):
    spec = TrainSpec(epochs=3, batch_size=32, lr=0.02, methods=[{"method": method, "strength": 0.01}])
    (tmp_path / "whole").mkdir()
    whole = fit(network(), TensorDataset(*samples()), spec, seed=5, checkpoint=tmp_path / "whole" / "c")
    assert equal(whole, interrupted(spec, tmp_path, at=9))


def test_networks_without_what_a_method_needs(tmp_path):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    for method, message in (
        ("slimming", "needs BatchNorms"),
        ("polarization", "needs BatchNorms"),
        ("group_lasso", "needs channels that can go"),
    ):
        spec = TrainSpec(epochs=1, batch_size=32, lr=0.1, methods=[method])
        with pytest.raises(RecipeError, match=message):
            fit(plain, TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c")
