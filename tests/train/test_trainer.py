"""The training loop learns, and an interrupted training ends as an uninterrupted one."""

import itertools

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from structprune.data import load_data
from structprune.data.folder import FolderSpec
from structprune.errors import RecipeError, StoreError, TrainingError
from structprune.recipe import TrainSpec
from structprune.seeds import derived
from structprune.tasks.building import make_task
from structprune.timm_names import optimizers
from structprune.train import accuracy, agreement, fit, predict
from structprune.train.checkpoint import restore, store
from structprune.train.spec import unusable
from tests.image_folders import write_digits
from tests.train.small_training import network, samples


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_it_learns(tmp_path, optimizer, schedule):
    images, labels = samples()
    spec = TrainSpec(epochs=8, batch_size=32, opt=optimizer, lr=0.01, sched=schedule, warmup_epochs=1)
    model = network().eval()
    before = accuracy(predict(model, images), labels)
    fit(model, TensorDataset(images, labels), spec, seed=0, checkpoint=tmp_path / "c.safetensors")
    assert not model.training
    assert accuracy(predict(model, images), labels) > max(0.85, before)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path, optimizer):
    images, labels = samples()
    spec = TrainSpec(epochs=4, batch_size=32, opt=optimizer, lr=0.01, weight_decay=0.01)
    whole = fit(network(), TensorDataset(images, labels), spec, seed=5, checkpoint=tmp_path / "whole.safetensors")

    def interrupt(step, steps, shown):
        if step == steps // 2 + 2:  # within the third epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(
            network(),
            TensorDataset(images, labels),
            spec,
            seed=5,
            checkpoint=tmp_path / "part.safetensors",
            progress=interrupt,
        )
    steps = []
    resumed = fit(
        network(), TensorDataset(images, labels), spec, seed=5, checkpoint=tmp_path / "part.safetensors",
        progress=lambda step, total, shown: steps.append(step),
    )  # fmt: skip
    assert steps[0] == 13  # two of the four epochs of six steps were done
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key


def test_too_large_a_batch_is_refused(tmp_path):
    images, labels = samples()
    with pytest.raises(RecipeError, match="batch_size=500 is more than the 192 training images"):
        fit(
            network(),
            TensorDataset(images, labels),
            TrainSpec(epochs=1, batch_size=500, lr=1),
            seed=0,
            checkpoint=tmp_path / "c",
        )


def test_agreement_and_divergence_by_hand():
    dense = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    slim = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    same, divergence = agreement(dense, slim)
    assert same == 0.5
    p, q = dense.softmax(1), slim.softmax(1)
    assert divergence == pytest.approx(float((p * (p / q).log()).sum() / 2), rel=1e-6)
    assert agreement(dense, dense) == (1.0, 0.0)


# --- optimisers ---------------------------------------------------------------------------------------------------

USABLE = sorted(name for name in optimizers() if unusable(name) is None)


def _step(model, optimizer, epoch):
    torch.manual_seed(epoch)
    images, labels = samples()
    for rows in torch.randperm(len(images))[:96].split(16):
        loss = nn.functional.cross_entropy(model.train()(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture
def _uncompiled():
    """kron compiles its steps, which takes most of a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("name", USABLE)
def test_every_optimiser_goes_on_from_a_file_as_if_it_had_not_stopped(tmp_path, name):
    def start():
        model = network()
        return model, create_optimizer_v2(model, opt=name, lr=1e-2, weight_decay=0.01)

    whole, optimizer = start()
    for epoch in range(3):
        _step(whole, optimizer, epoch)
    part, optimizer = start()
    _step(part, optimizer, 0)
    store(tmp_path / "c", part, optimizer, 1)
    again, optimizer = start()
    _step(again, optimizer, 9)  # whatever state it has goes
    assert restore(tmp_path / "c", again, optimizer) == 1
    for epoch in (1, 2):
        _step(again, optimizer, epoch)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key


def test_what_can_not_train_here_is_refused_by_name():
    assert len(USABLE) > 80
    assert {"adamw", "sgd", "lamb", "muon", "kron", "lion", "adafactor"} <= set(USABLE)
    with pytest.raises(ValueError, match=r"optimizer adahessian can't be used here: it needs second derivatives"):
        TrainSpec(epochs=1, lr=0.1, opt="adahessian")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"optimizer fusedadam can't be used here: .*CUDA"):
            TrainSpec(epochs=1, lr=0.1, opt="fusedadam")


class _Odd(torch.optim.SGD):
    def state_dict(self):
        return {**super().state_dict(), "odd": object()}


def test_a_state_that_is_no_plain_data_is_refused(tmp_path):
    model = network()
    with pytest.raises(StoreError, match="the optimizer keeps a object, which can't be stored"):
        store(tmp_path / "c", model, _Odd(model.parameters(), lr=0.1), 1)


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("optimizer", ["kron", "adopt"])
def test_training_with_an_optimiser_of_much_state_resumes(tmp_path, optimizer):
    train = TensorDataset(*samples())
    spec = TrainSpec(epochs=2, batch_size=32, opt=optimizer, lr=0.001)
    whole = fit(network(), train, spec, seed=5, checkpoint=tmp_path / "whole")

    def interrupt(step, steps, shown):
        if step == steps // 2 + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network(), train, spec, seed=5, checkpoint=tmp_path / "part", progress=interrupt)
    resumed = fit(network(), train, spec, seed=5, checkpoint=tmp_path / "part")
    assert all(torch.equal(tensor, resumed.state_dict()[key]) for key, tensor in whole.state_dict().items())


# --- seeds, divergence, data --------------------------------------------------------------------------------------


def test_any_seed_trains_and_seeds_differ(tmp_path):
    spec, train = TrainSpec(epochs=1, batch_size=96, lr=0.01), TensorDataset(*samples())
    found = [
        fit(network(), train, spec, seed=seed, checkpoint=tmp_path / f"{seed}").state_dict()["5.weight"]
        for seed in (41, 42_949, 2**31)
    ]
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(found))


def test_small_seeds_are_counted_on_from_and_all_fit_numpy():
    assert derived(3) == 3
    assert derived(3, 7) == 300_016
    found = {derived(seed, epoch) for seed in (42_949, 42_950, 2**31, 2**40) for epoch in range(50)}
    assert len(found) == 200
    assert all(0 <= seed < 2**32 for seed in found)


def test_a_training_that_diverges_says_so(tmp_path):
    train = TensorDataset(*samples())
    spec = TrainSpec(epochs=3, batch_size=32, opt="sgd", lr=1e30)
    with pytest.raises(
        TrainingError, match=r"training the dense network diverged in epoch 1 of 3: .*lower lr than 1e\+30"
    ):
        fit(network(), train, spec, seed=0, checkpoint=tmp_path / "c", what="the dense network")
    assert not (tmp_path / "c").exists()
    one = TrainSpec(epochs=1, batch_size=192, opt="sgd", lr=1e38)  # one step: no later loss shows it
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with pytest.raises(TrainingError, match="holds NaN or infinite values"):
        fit(plain, TensorDataset(train.tensors[0] * 1e3, train.tensors[1]), one, seed=0, checkpoint=tmp_path / "d")


def test_a_task_decides_inputs_targets_and_loss(tmp_path):
    class Numbers(Dataset):
        def __len__(self):
            return 32

        def __getitem__(self, index):
            x = torch.full((4,), index / 32)
            return {"x": x, "target": x.flip(0) * 2 + 1}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return {"out": self.layer(x)}

    losses = []
    spec = TrainSpec(epochs=30, batch_size=16, lr=0.05)
    model = fit(
        Net(), Numbers(), spec, task=make_task("regression"), seed=0, checkpoint=tmp_path / "c", workers=0,
        progress=lambda step, steps, shown: losses.append(shown["loss"]),
    )  # fmt: skip
    assert losses[-1] < losses[0] / 20
    assert not model.training


def test_files_are_read_by_workers_and_augmented_and_resume_alike(tmp_path):
    write_digits(tmp_path / "all", each=12)
    spec = FolderSpec(source="folder", path=str(tmp_path / "all"), image_size=6, augment={"color_jitter": None})
    data = load_data(spec, network(), seed=0)
    train = TrainSpec(epochs=2, batch_size=8, lr=0.01)
    options = {"seed": 1, "workers": 1}
    whole = fit(network(), data.train, train, checkpoint=tmp_path / "whole", **options)

    def interrupt(step, steps, shown):
        if step == steps // 2 + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network(), data.train, train, checkpoint=tmp_path / "part", progress=interrupt, **options)
    resumed = fit(network(), data.train, train, checkpoint=tmp_path / "part", **options)
    assert all(torch.equal(tensor, resumed.state_dict()[key]) for key, tensor in whole.state_dict().items())


def test_data_that_can_t_be_trained_on(tmp_path):
    images, labels = samples()
    for train, message in (
        (TensorDataset(images), "training needs labels"),
        (TensorDataset(images, labels + 1), "the network gives 3 classes for 64 images"),
        (TensorDataset(images[:0], labels[:0]), "there is no training data"),
        ([images], "training data is a list: give a torch Dataset"),
    ):
        with pytest.raises(RecipeError, match=message):
            fit(network(), train, TrainSpec(epochs=1, lr=0.1), seed=0, checkpoint=tmp_path / "c")


def test_labels_are_checked_in_every_batch(tmp_path):
    images, labels = samples()
    labels[7] = 9  # whichever batch it comes in
    for batch in (16, 192):
        spec = TrainSpec(epochs=1, batch_size=batch, lr=0.001)
        with pytest.raises(RecipeError, match="from 0 to 2"):
            fit(network(), TensorDataset(images, labels), spec, seed=0, checkpoint=tmp_path / "c")


def test_mixed_up_labels_train(tmp_path):
    images, labels = samples()
    shares = 0.9 * nn.functional.one_hot(labels, 3).float() + 0.1 / 3
    spec = TrainSpec(epochs=6, batch_size=32, lr=0.01)
    model = fit(network(), TensorDataset(images, shares), spec, seed=0, checkpoint=tmp_path / "c")
    assert accuracy(predict(model, images), labels) > 0.85


def test_what_a_network_raises_in_training_is_one_line(tmp_path):
    class Net(nn.Sequential):
        def forward(self, x):
            if self.training:
                raise KeyError("no way to train\nthis")
            return super().forward(x)

    spec = TrainSpec(epochs=2, batch_size=32, lr=0.01)
    message = "training the slim network failed in epoch 1 of 2: KeyError: 'no way to train"
    with pytest.raises(TrainingError, match=message) as error:
        fit(
            Net(*network()), TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c", what="the slim network"
        )
    assert "\n" not in str(error.value)
