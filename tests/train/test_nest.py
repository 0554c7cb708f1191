"""Growth from a seed (NeST) by units, against its definition."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from structprune.errors import RecipeError
from structprune.recipe import TrainSpec
from structprune.train import fit
from structprune.train.methods.nest import Nest, NestSpec
from tests.train.small_training import assert_half_is_zero_and_goes, equal, interrupted, network, samples
from tests.train.test_masks import PLAN, begun, gradients_taken_in, in_blocks, taken_in
from tests.train.test_sparse_methods import Residual


def test_how_many_units_are_active_rises_evenly_to_the_peak_and_falls_to_the_budget():
    spec = NestSpec(seed=0.25, peak=1.5, interval=1, grow=0.4, prune=0.7, **PLAN)
    model = Residual()
    method, numbers = begun(Nest(spec), model, torch.optim.SGD(model.parameters())), {}
    for updates in (0, 4, 8, 12, 16, 20, 24, 28, 40):
        method.updates = updates
        numbers[updates] = method.number(8, 20)
    assert numbers == {0: 2, 4: 4, 8: 7, 12: 9, 16: 12, 20: 11, 24: 10, 28: 8, 40: 8}
    method.updates = 16
    assert method.number(8, 9) == 9
    method.updates = 0
    assert method.number(1, 9) == 1


def test_units_join_by_the_mean_of_gradients_and_go_by_size():
    model = Residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    spec = NestSpec(seed=0.4, peak=2.0, interval=2, grow=0.1, prune=0.2, **PLAN)  # of 40 updates: at 4 and at 8
    method = begun(Nest(spec), model, optimizer)
    first = {name: kernels.norm(dim=1) for name, kernels in taken_in(Residual()).items()}
    for name, active in method.masks.active.items():
        largest = first[name].argsort(descending=True)[: int(active.sum())]
        assert active.nonzero()[:, 0].tolist() == sorted(largest.tolist())
    generator, sums = torch.Generator().manual_seed(2), {}
    images, labels = samples()
    for update in range(8):
        chosen = torch.randperm(len(images), generator=generator)[:24]
        optimizer.zero_grad()
        F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        before = {name: active.clone() for name, active in method.masks.active.items()}
        for name, kernels in gradients_taken_in(model).items():
            sums[name] = sums.get(name, 0) + kernels
        method.after_backward(model)
        optimizer.step()
        sizes = {name: kernels.norm(dim=1).detach() for name, kernels in taken_in(model).items()}
        method.after_step(model)
        for name, active in method.masks.active.items():
            expected = before[name].clone()
            number = method.number(method.masks.widths[name], len(active)) if update % 2 else int(expected.sum())
            difference = number - int(expected.sum())
            if difference > 0:
                slope = torch.where(expected, -torch.inf, sums[name].norm(dim=1))
                expected[slope.argsort(descending=True)[:difference]] = True
            elif difference < 0:
                expected[torch.where(expected, sizes[name], torch.inf).argsort()[:-difference]] = False
            assert torch.equal(active, expected)
            assert torch.equal((taken_in(model)[name] != 0).any(1), before[name] & active)  # new ones start at zero
            if name == "inner":
                moments = optimizer.state[model.conv2.weight]["momentum_buffer"].transpose(0, 1).flatten(1)
                assert not moments[~(before[name] & active)].any()
        if update % 2:
            sums = {}
        assert method.settled == (update == 7)
    assert {name: int(active.sum()) for name, active in method.masks.active.items()} == method.masks.widths


@pytest.mark.parametrize("make", [Residual, in_blocks])
def test_the_cut_removes_exactly_the_dormant_units(tmp_path, make):
    images, labels = samples()
    spec = TrainSpec(epochs=4, batch_size=32, lr=0.02, methods=[{"method": "nest", "interval": 2, **PLAN}])
    trained = fit(make(), TensorDataset(images, labels), spec, seed=0, checkpoint=tmp_path / "c")
    assert_half_is_zero_and_goes(trained)


def test_an_interrupted_training_ends_the_same(tmp_path):
    spec = TrainSpec(epochs=3, batch_size=32, lr=0.02, methods=[{"method": "nest", "interval": 4, **PLAN}])
    whole = fit(network(), TensorDataset(*samples()), spec, seed=5, checkpoint=tmp_path / "whole")
    assert equal(whole, interrupted(spec, tmp_path, at=9))


def test_what_is_refused(tmp_path):
    data = TensorDataset(*samples())
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
    spec = TrainSpec(epochs=2, batch_size=32, lr=0.1, methods=[{"method": "nest", "interval": 2, **PLAN}])
    with pytest.raises(RecipeError, match="method nest needs channels that can go"):
        fit(plain, data, spec, seed=0, checkpoint=tmp_path / "c")
    short = TrainSpec(epochs=2, batch_size=32, lr=0.1, methods=[{"method": "nest", "interval": 6, **PLAN}])
    with pytest.raises(RecipeError, match=r"changes units every 6 updates, and this training's 12 leave no time"):
        fit(network(), data, short, seed=0, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=r"prune=0\.3 is not after grow=0\.4: units join first, and go later"):
        NestSpec(prune=0.3, grow=0.4)
    with pytest.raises(ValueError, match="model_ema averages the weights that method nest sets"):
        TrainSpec(epochs=1, lr=0.1, model_ema=True, methods=["nest"])
