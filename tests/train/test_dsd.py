"""Dense-sparse-dense training (DSD) by units, against its definition."""

import re

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from structprune.errors import RecipeError
from structprune.recipe import TrainSpec
from structprune.train import accuracy, fit, predict
from structprune.train.methods.dsd import Dsd, DsdSpec
from tests.train.small_training import assert_half_is_zero_and_goes, equal, interrupted, network, samples
from tests.train.test_masks import begun, taken_in
from tests.train.test_planned_methods import recipe_of, removed_units
from tests.train.test_sparse_methods import Residual

HALF = {"budget": {"channels": 0.5}, "align": 1}


def held(model, optimizer, removed):
    """Sets the kernels that take these units in to zero, and their moments."""
    kernels = [(model.conv2.weight, 1, "inner"), (model.inner.weight, 1, "conv1"), (model.head.weight, 1, "conv1")]
    with torch.no_grad():
        for weight, dim, name in kernels:
            for values in (weight, optimizer.state[weight]["momentum_buffer"]):
                values.index_fill_(dim, torch.tensor(removed.get(name, []), dtype=torch.long), 0.0)


def by_hand(updates, first, second):
    """SGD with momentum, in which half of the units are at zero after the first to the second update."""
    model = Residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    removed = {}
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = 0.1 * (0.1 if update >= second else 1)
        optimizer.zero_grad()
        F.cross_entropy(model.train()(samples()[0]), samples()[1]).backward()
        optimizer.step()
        if update + 1 == first:
            removed = removed_units(model)
        if first <= update + 1 <= second:
            held(model, optimizer, removed)
    return model, removed


@pytest.mark.parametrize("updates", [3, 6, 10])
def test_the_smallest_units_are_at_zero_and_then_grow_from_zero_at_a_tenth_of_the_rate(tmp_path, updates):
    options = {"method": "dsd", "dense": 0.2, "sparse": 0.4, **HALF}
    spec = TrainSpec(
        epochs=10, batch_size=192, opt="momentum", lr=0.1, sched="constant", opt_kwargs={"nesterov": False},
        methods=[options],
    )  # fmt: skip
    figures = []
    model = fit(
        Residual(), TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c", until=updates,
        log=lambda rows: figures.append(rows[-1].lr),
    )  # fmt: skip
    expected, removed = by_hand(updates, 2, 6)
    assert len(removed["inner"]) >= 2
    assert len(removed["conv1"]) >= 2
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[key], rtol=1e-3, atol=1e-4, msg=key)
    for name, kernels in taken_in(model).items():
        assert (kernels == 0).all(1).nonzero()[:, 0].tolist() == ([] if updates > 6 else removed[name])
    assert figures == pytest.approx([0.1] * min(updates, 6) + [0.01] * (updates - 6))


def test_the_share_of_each_group_is_its_own_and_may_be_of_finetuning(tmp_path):
    finetune = {"epochs": 10, "lr": 0.1, "methods": [{"method": "dsd", "sparsity": 0.4}]}
    recipe = recipe_of({"method": "dsd"}, finetune, budget={"speedup": 1.5})
    assert recipe.cautions == []
    assert recipe.train.methods[0].budget is None
    method = begun(Dsd(recipe.finetune.methods[0]), model := Residual(), torch.optim.SGD(model.parameters()))
    method.updates = method.first - 1
    method.after_step(model)
    assert method.masks.widths == {"conv1": 4, "inner": 3}  # of 6 and 5
    assert begun(Dsd(DsdSpec()), model, torch.optim.SGD(model.parameters())).masks.widths == {"conv1": 4, "inner": 3}


def test_the_cut_removes_what_is_at_zero_once_more_where_it_ends_slim(tmp_path):
    images, labels = samples()
    options = {"method": "dsd", "dense": 0, "sparse": 0.4, "end": "slim", **HALF}
    spec = TrainSpec(epochs=4, batch_size=32, lr=0.02, methods=[options], keep_best=True)
    held_out = TensorDataset(images[:64], labels[:64])
    notes = []
    trained = fit(
        Residual(), TensorDataset(images, labels), spec, validation=held_out, seed=0, checkpoint=tmp_path / "c",
        tell=notes.append,
    )  # fmt: skip
    assert "after epoch 4 of the 4" in notes[0]  # no other has these units at zero
    assert_half_is_zero_and_goes(trained)


def test_no_epoch_before_the_last_part_is_the_best(tmp_path):
    images, labels = samples()
    options = {"method": "dsd", "dense": 0.25, "sparse": 0.5, "lr": 1e-9, "sparsity": 0.7}
    spec = TrainSpec(epochs=8, batch_size=32, lr=0.02, methods=[options], patience=1)
    notes = []
    held_out = TensorDataset(images[:64], labels[:64])
    model = fit(
        Residual(), TensorDataset(images, labels), spec, validation=held_out, seed=0, checkpoint=tmp_path / "c",
        tell=notes.append,
    )  # fmt: skip
    assert re.search("after epoch [78] of the 8", notes[0])  # the last part begins with the seventh
    assert f"was best, {accuracy(predict(model, images[:64]), labels[:64]):.4f}," in notes[0]


@pytest.mark.parametrize("end", ["dense", "slim"])
@pytest.mark.parametrize("at", [9, 15])
def test_an_interrupted_training_ends_the_same(tmp_path, end, at):
    options = {"method": "dsd", "dense": 0.3, "sparse": 0.3, "end": end, **HALF}
    spec = TrainSpec(epochs=3, batch_size=32, lr=0.02, methods=[options])
    whole = fit(network(), TensorDataset(*samples()), spec, seed=5, checkpoint=tmp_path / "whole")
    assert equal(whole, interrupted(spec, tmp_path, at=at))


def test_what_is_refused(tmp_path):
    short = TrainSpec(epochs=1, batch_size=96, lr=0.1, methods=["dsd"])
    with pytest.raises(
        RecipeError, match="parts a training at updates 1, 1 of 2, which leaves one of its parts no update"
    ):
        fit(network(), TensorDataset(*samples()), short, seed=0, checkpoint=tmp_path / "c")
    for options, message in (
        ({"dense": 0.5, "sparse": 0.5}, "leave nothing of training"),
        ({"sparsity": 0.3, "end": "slim"}, "sparsity=0.3 does not go with end=slim"),
        ({"sparsity": 0.3, "budget": {"channels": 0.5}}, "sparsity=0.3 does not go with budget="),
        ({"budget": {"macs": 0.5, "speedup": 2}}, "end=dense has a budget of speedup"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainSpec(epochs=1, lr=0.1, methods=[{"method": "dsd", **options}])
    with pytest.raises(RecipeError, match="dsd plans the cut that follows, and none does: use it in train"):
        recipe_of("soft", {"epochs": 9, "lr": 0.1, "methods": [{"method": "dsd", "end": "slim"}]})
    with pytest.raises(ValueError, match="methods soft and dsd each set weights that the other would undo"):
        TrainSpec(epochs=1, lr=0.1, methods=["soft", "dsd"])
