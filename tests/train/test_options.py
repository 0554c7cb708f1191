"""timm's options of training, each against what it says by hand; all of them go on from a checkpoint exactly."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, TensorDataset, WeightedRandomSampler

from structprune.errors import RecipeError
from structprune.recipe import TrainSpec, check_recipe
from structprune.train import fit
from structprune.train.trainer import EpochFigures
from tests.train.small_training import equal, interrupted, network, samples


def trained(folder, model=None, data=None, **options):
    own = {key: options.pop(key) for key in ("validation", "log", "dense", "tell") if key in options}
    spec = TrainSpec(**{"epochs": 2, "batch_size": 32, "lr": 0.02, "opt": "sgd", **options})
    folder.mkdir(exist_ok=True)
    return fit(model or network(), data or TensorDataset(*samples()), spec, seed=5, checkpoint=folder / "part", **own)


def plain():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def test_several_small_batches_are_one_large_one(tmp_path):
    images, labels = samples()
    options = {"epochs": 1, "lr": 0.1, "model": None, "sched": "constant"}
    for whole, small, count in ((192, 48, 4), (192, 64, 3)):
        options |= {"model": plain()}
        one = trained(tmp_path / f"{small}a", data=TensorDataset(images, labels), batch_size=whole, **options)
        options |= {"model": plain()}
        other = trained(tmp_path / f"{small}b", batch_size=small, grad_accum_steps=count, **options)
        for key, tensor in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[key], tensor, rtol=1e-5, atol=1e-6)


def test_a_last_update_of_fewer_batches_is_by_their_mean(tmp_path):
    images, labels = samples()
    same = TensorDataset(images[:1].expand(192, -1, -1, -1), labels[:1].expand(192))  # any mean is the same
    one = trained(tmp_path / "a", model=plain(), data=same, epochs=1, batch_size=96, sched="constant")  # 2 updates
    other = trained(
        tmp_path / "b", model=plain(), data=same, epochs=1, batch_size=48, grad_accum_steps=3, sched="constant"
    )  # of 3 and 1
    for key, tensor in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], tensor)


def test_the_average_of_the_weights_is_handed_out(tmp_path):
    """Two updates of plain gradient descent on all samples, averaged by hand."""
    images, labels = samples()
    model = plain()
    average = copy.deepcopy(model.state_dict())
    reference = copy.deepcopy(model)
    for update in range(2):
        loss = F.cross_entropy(reference(images), labels)
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(reference.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
        decay = 0.75 if update else 0.0  # timm takes the first weights whole
        average = {key: decay * value + (1 - decay) * reference.state_dict()[key] for key, value in average.items()}
    options = {"batch_size": 192, "lr": 0.1, "opt": "momentum", "momentum": 0.0, "sched": "constant"}
    averaged = trained(tmp_path / "a", model=model, model_ema=True, model_ema_decay=0.75, **options)
    for key, tensor in averaged.state_dict().items():
        torch.testing.assert_close(tensor, average[key])
    assert not equal(averaged, trained(tmp_path / "b", model=plain(), **options))


class Spy(nn.Module):
    """Keeps the targets that its task is asked about."""

    def __init__(self):
        super().__init__()
        self.layer = plain()
        self.seen = []

    def forward(self, x):
        if self.training:
            self.seen.append(x.detach().cpu())
        return self.layer(x)


def test_smoothed_labels_are_cross_entropy_with_smoothing(tmp_path):
    images, labels = samples()
    losses = []
    options = {"epochs": 1, "batch_size": 192, "smoothing": 0.3, "log": lambda rows: losses.append(rows[-1].train_loss)}
    trained(tmp_path / "a", model=plain(), **options)
    assert losses[0] == pytest.approx(float(F.cross_entropy(plain()(images), labels, label_smoothing=0.3)), rel=1e-5)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_pairs_of_images_are_mixed(tmp_path, kind):
    images, _ = samples()
    model = Spy()
    trained(tmp_path / "a", model=model, epochs=2, batch_size=192, mixup_off_epoch=1, **{kind: 1.0})
    mixed, as_drawn = model.seen
    own = {tuple(image.flatten().tolist()) for image in images}
    assert {tuple(image.flatten().tolist()) for image in as_drawn} == own  # off from the second epoch on
    assert not own & {tuple(image.flatten().tolist()) for image in mixed}
    torch.testing.assert_close(mixed.mean((0, 1)).mean(), images.mean((0, 1)).mean(), rtol=1e-3, atol=1e-3)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32(tmp_path):
    seen = set()
    model = network()
    model[0].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype) if module.training else None)
    slim = trained(tmp_path / "a", model=model, amp_dtype="bfloat16")
    assert seen == {torch.bfloat16}
    assert {tensor.dtype for tensor in slim.parameters()} == {torch.float32}
    full = trained(tmp_path / "b")  # a later training is in full precision again
    assert not equal(slim, full)
    assert equal(full, trained(tmp_path / "c"))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="float16 needs a GPU"):
            TrainSpec(epochs=1, lr=0.1, amp_dtype="float16")


def test_gradient_checkpointing_gives_the_same_weights(tmp_path):
    import timm

    def run(name, **options):
        torch.manual_seed(0)
        model = timm.create_model("test_vit", num_classes=3, img_size=32, in_chans=1)
        data = TensorDataset(torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)
        return trained(tmp_path / name, model=model, data=data, epochs=1, batch_size=4, **options)

    plain_weights, again = run("a"), run("b", grad_checkpointing=True)
    for key, tensor in plain_weights.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], tensor)
    assert not again.grad_checkpointing
    with pytest.raises(RecipeError, match="grad_checkpointing needs a network with set_grad_checkpointing"):
        trained(tmp_path / "c", grad_checkpointing=True)


def rates(folder, **options):
    rows = []
    trained(folder, epochs=6, lr=1.0, opt="sgd", log=lambda figures: rows.append(figures[-1].lr), **options)
    return rows


def test_learning_rates_fall_as_timm_lets_them(tmp_path):
    assert rates(tmp_path / "a", sched="step", decay_epochs=2, decay_rate=0.5) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert rates(tmp_path / "b", sched="multistep", decay_milestones=[1, 4]) == pytest.approx(
        [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
    )
    warm = rates(tmp_path / "c", sched="constant", warmup_epochs=2, warmup_lr=0.0)
    assert warm[0] < warm[1] < 1
    assert warm[2:] == [1.0] * 4
    assert rates(tmp_path / "d", sched="cosine", min_lr=0.5)[-1] == pytest.approx(0.5, abs=0.01)


def test_options_that_can_t_be(tmp_path):
    for options, message in (
        ({"sched": "multistep"}, "needs decay_milestones"),
        ({"mixup": 0.2, "batch_size": 33}, "in pairs"),
        ({"optimizer": "sgd", "opt": "sgd"}, "optimizer and opt are one key"),
        ({"val_interval": 9, "keep_best": True}, "val_interval=9 never comes"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainSpec(**{"epochs": 2, "lr": 0.1, **options})
    assert (
        TrainSpec.model_validate({"epochs": 2, "lr": 0.1, "optimizer": "sgd", "schedule": "constant"}).sched
        == "constant"
    )
    with pytest.raises(RecipeError, match=r"nestrov.* can't be made"):
        trained(tmp_path / "a", opt_kwargs={"nestrov": 1})
    with pytest.raises(ValueError, match="sched=plateau can't be resumed to the same weights"):
        TrainSpec(epochs=1, lr=0.1, sched="plateau")
    for option in ({"keep_best": True}, {"val_interval": 1}):
        with pytest.raises(RecipeError, match="keep_best, patience and val_interval need a validation split"):
            trained(tmp_path / "b", **option)


def test_measuring_every_few_epochs_asks_for_a_validation_split_and_chooses_nothing():
    recipe = {"model": {"name": "resnet18"}, "data": {"source": "digits"}, "prune": {"budget": {"macs": 0.5}}}
    training = {"epochs": 4, "lr": 0.1}
    assert not check_recipe({**recipe, "finetune": training}).validates
    assert check_recipe({**recipe, "finetune": {**training, "val_interval": 2}}).validates
    assert not TrainSpec(**training, val_interval=2).chooses


def after_a_step(folder, **options):
    """What one step of plain gradient descent makes of a linear network, what it was, and its gradients."""
    model = plain()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    images, labels = samples()
    gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
    fixed = {"epochs": 1, "batch_size": 192, "lr": 0.1, "opt": "momentum", "momentum": 0.0, "sched": "constant"}
    slope = dict(zip(before, gradients, strict=True))
    return trained(folder, model=model, **fixed, **options).state_dict(), before, slope


def test_weights_are_decayed_and_biases_are_not(tmp_path):
    stepped, before, slope = after_a_step(tmp_path / "a", weight_decay=0.5)
    decayed = before["1.weight"] - 0.1 * (slope["1.weight"] + 0.5 * before["1.weight"])
    torch.testing.assert_close(stepped["1.weight"], decayed)
    torch.testing.assert_close(stepped["1.bias"], before["1.bias"] - 0.1 * slope["1.bias"])


def test_gradients_are_bounded_by_their_values(tmp_path):
    stepped, before, slope = after_a_step(tmp_path / "a", clip_grad=0.01, clip_mode="value")
    for key, gradient in slope.items():
        assert gradient.abs().max() > 0.01
        torch.testing.assert_close(stepped[key], before[key] - 0.1 * gradient.clamp(-0.01, 0.01))


OPTIONS = {
    "accumulation": {"grad_accum_steps": 2},
    "average": {"model_ema": True, "model_ema_decay": 0.9},
    "mixing": {"mixup": 0.3, "cutmix": 0.5, "mixup_off_epoch": 3, "smoothing": 0.1},
    "half": {"amp_dtype": "bfloat16", "clip_grad": 1.0, "channels_last": True},
    "best": {"keep_best": True, "val_interval": 2, "model_ema": True, "model_ema_decay": 0.5},
    "layers": {"layer_decay": 0.5, "opt": "lamb", "sched": "wsd", "warmup_epochs": 1, "decay_epochs": 1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_interrupted_training_with_options_ends_the_same(tmp_path, name):
    validation = {"validation": TensorDataset(*samples())} if name == "best" else {}
    options = {"epochs": 4, "batch_size": 32, "lr": 0.02, **OPTIONS[name]}
    (tmp_path / "whole").mkdir()
    whole = fit(
        network(),
        TensorDataset(*samples()),
        TrainSpec(**options),
        seed=5,
        checkpoint=tmp_path / "whole" / "part",
        **validation,
    )
    assert equal(whole, interrupted(TrainSpec(**options), tmp_path, at=15, **validation))


def weighted_batches(batched):
    """A loader whose sampler has a generator of its own, that draws some images more often than others."""
    data, generator = TensorDataset(*samples()), torch.Generator().manual_seed(7)
    sampler = WeightedRandomSampler([1.0, 5.0] * 96, 192, generator=generator)
    if batched:
        return DataLoader(data, batch_sampler=BatchSampler(sampler, 32, drop_last=True))
    return DataLoader(data, batch_size=32, sampler=sampler)


@pytest.mark.parametrize("batched", [False, True])
def test_an_interrupted_training_goes_on_with_the_order_of_a_loader_of_ones_own(tmp_path, batched):
    def interrupt(step, steps, shown):
        if step == 9:
            raise KeyboardInterrupt

    spec, options = TrainSpec(epochs=3, batch_size=32, lr=0.02), {"seed": 5, "checkpoint": tmp_path / "part"}
    whole = fit(network(), weighted_batches(batched), spec, seed=5, checkpoint=tmp_path / "whole")
    loader = weighted_batches(batched)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), loader, spec, progress=interrupt, **options)
    assert equal(whole, fit(network(), loader, spec, **options))


def test_the_figures_of_all_epochs_survive_an_interruption(tmp_path):
    rows = []
    spec = TrainSpec(epochs=4, batch_size=32, lr=0.02, val_interval=2)
    interrupted(
        spec, tmp_path, at=15, validation=TensorDataset(*samples()), log=lambda figures: rows.append(list(figures))
    )
    assert [row.epoch for row in rows[-1]] == [1, 2, 3, 4]
    assert [row.value is not None for row in rows[-1]] == [False, True, False, True]
    assert all(isinstance(row, EpochFigures) and row.metric == "accuracy" for row in rows[-1])
    assert rows[-1][:2] == rows[1]
