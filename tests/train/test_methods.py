"""What methods add to training, early stopping, and training on from weights; all of it resumes exactly."""

import io
import re
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import TensorDataset

from structprune.errors import RecipeError, StoreError
from structprune.progress import Reporter
from structprune.recipe import TrainSpec, check_recipe
from structprune.run import runner_of
from structprune.store.artefacts import Artefacts
from structprune.train import fit
from structprune.train.method import TRAINING_METHODS, TrainingMethod
from structprune.train.spec import TrainSpec as Spec
from tests.train.small_training import equal, interrupted, network, samples

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.DOTALL))
OWN = """
import torch
from structprune.train.method import TrainingMethod

class Pull(TrainingMethod):
    '''Towards a running mean of the first weight; it has a state.'''
    def __init__(self, strength=0.1):
        self.strength = strength
    def start(self, training):
        self.mean, self.steps = torch.zeros_like(training.model[0].weight), 0
    def loss(self, step):
        return step.loss + self.strength * (step.model[0].weight - self.mean).square().sum()
    def after_step(self, model):
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * model[0].weight.detach()
    def after_epoch(self, model, epoch):
        self.note = f"{self.steps} steps, {epoch} epochs"
    def state(self):
        return {"mean": self.mean, "steps": self.steps}
    def restore(self, state):
        self.mean, self.steps = state["mean"], state["steps"]

class Other: pass
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("methods") / "own_method_of_tests.py"
    path.write_text(OWN)
    return path


def test_clipped_gradients_move_the_weights_so_far_and_no_further(tmp_path):
    def moved(bound):
        spec = TrainSpec(
            epochs=1, batch_size=192, opt="momentum", lr=1.0, sched="constant", clip_grad=bound
        )  # one step
        model = fit(network(), TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / f"{bound}")
        before = dict(network().named_parameters())
        return float(sum((p - before[k]).square().sum() for k, p in model.named_parameters()).sqrt())

    assert moved(None) > 1.0
    assert moved(1.0) == pytest.approx(1.0, rel=1e-2)
    assert moved(1e-3) == pytest.approx(1e-3, rel=1e-2)


def test_a_method_of_the_users_own_changes_the_loss_and_resumes_exactly(tmp_path, own):
    spec = TrainSpec(
        epochs=3, batch_size=32, opt="adamw", lr=0.01,
        methods=[{"method": f"{own}:Pull", "kwargs": {"strength": 0.5}}],
    )  # fmt: skip
    told = []
    whole = fit(network(), TensorDataset(*samples()), spec, seed=5, checkpoint=tmp_path / "whole", tell=told.append)
    assert equal(whole, interrupted(spec, tmp_path, at=9))
    plain = fit(
        network(),
        TensorDataset(*samples()),
        spec.model_copy(update={"methods": ()}),
        seed=5,
        checkpoint=tmp_path / "no",
    )
    assert not equal(whole, plain)
    assert [line.startswith("runs code of ") for line in told] == [True, False]
    assert told[-1] == "18 steps, 3 epochs"
    wrong = TrainSpec(epochs=1, lr=0.1, methods=[f"{own}:Other"])
    with pytest.raises(RecipeError, match="makes a Other: give a class that extends"):
        fit(network(), TensorDataset(*samples()), wrong, seed=5, checkpoint=tmp_path / "wrong")


def stopping(**options):
    return Spec(**{"epochs": 9, "batch_size": 32, "lr": 0.02, "sched": "constant", "patience": 2, **options})


def test_training_ends_when_the_validation_split_gains_no_more(tmp_path):
    images, labels = samples()
    torch.manual_seed(1)
    noise = TensorDataset(torch.randn(60, 1, 6, 6), torch.randint(0, 3, (60,)))  # nothing to be learned of it
    told, options = [], {"validation": noise, "seed": 5}
    whole = fit(
        network(), TensorDataset(images, labels), stopping(), checkpoint=tmp_path / "whole", tell=told.append, **options
    )
    (line,) = told
    best, trained = map(int, re.search(r"after epoch (\d+) of the (\d+) that were trained", line).groups())
    assert best + 2 == trained < 9
    shorter = stopping(epochs=best, patience=None)
    assert equal(whole, fit(network(), TensorDataset(images, labels), shorter, seed=5, checkpoint=tmp_path / "short"))
    assert equal(whole, interrupted(stopping(), tmp_path, at=6 * best + 3, **options))
    again = fit(network(), TensorDataset(images, labels), stopping(), checkpoint=tmp_path / "whole", **options)
    assert equal(whole, again)  # it had ended, and does not go on
    with pytest.raises(RecipeError, match="patience and val_interval need a validation split"):
        fit(network(), TensorDataset(images, labels), stopping(), seed=5, checkpoint=tmp_path / "none")


def recipe(tmp_path, **changes):
    return check_recipe(
        {
            "model": {"name": "test_resnet", "kwargs": {"in_chans": 1, "num_classes": 10}},
            "data": {"source": "digits"},
            "train": {"epochs": 1, "batch_size": 64, "lr": 1e-6},
            "prune": {"budget": {"macs": 0.5}},
            **changes,
        }
    )


def dense_of(recipe, folder):
    shown = io.StringIO()
    runner = runner_of(recipe, Reporter(Console(file=shown, width=200)), Artefacts(folder))
    return runner.value("dense"), shown.getvalue(), runner


class Unsettled(TrainingMethod):
    """On the way to another network until an epoch."""

    def __init__(self, until):
        self.settled, self.until = False, until

    def after_epoch(self, model, epoch):
        self.settled = epoch >= self.until


class Opaque(TrainingMethod):
    """With a state that no checkpoint can hold."""

    def state(self):
        return {"held": object()}


def test_a_state_that_can_not_be_kept_is_said_before_training(tmp_path):
    steps, spec = [], Spec(epochs=1, batch_size=64, lr=0.002)
    options = {"methods": [Opaque()], "progress": lambda step, count, shown: steps.append(step)}
    with pytest.raises(StoreError, match="training method Opaque keeps a object, which can't be stored"):
        fit(network(), TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "a", **options)
    assert not steps


@pytest.mark.parametrize("until", [3, 9])
def test_what_a_caller_gives_says_which_epochs_are_the_best_too(tmp_path, until):
    images, labels = samples()
    spec, notes = Spec(epochs=3, batch_size=64, lr=0.002, keep_best=True), []  # a GPU's rounding stays small

    def trained(name, spec, **options):
        return fit(network(), TensorDataset(images, labels), spec, seed=0, checkpoint=tmp_path / name, **options)

    model = trained(
        "a", spec, validation=TensorDataset(images[:64], labels[:64]), tell=notes.append, methods=[Unsettled(until)]
    )
    assert equal(model, trained("b", Spec(epochs=3, batch_size=64, lr=0.002)))  # the last epoch, or none before it
    assert ("after epoch 3" if until == 3 else "the last weights are kept") in notes[0]


@pytest.mark.thorough
def test_training_goes_on_from_given_weights_and_says_so(tmp_path):
    given, text, _ = dense_of(recipe(tmp_path), tmp_path / "store")
    assert "training the dense network, 1 epoch" in text
    state = {key: tensor + 0.01 for key, tensor in given.state_dict().items() if tensor.is_floating_point()}
    save_file({**given.state_dict(), **state}, tmp_path / "w.safetensors")
    model = {"name": "test_resnet", "kwargs": {"in_chans": 1, "num_classes": 10}}
    on = recipe(tmp_path, model={**model, "weights": str(tmp_path / "w.safetensors")})
    trained, text, _ = dense_of(on, tmp_path / "store")
    assert "training the dense network, on from the weights that it came with, 1 epoch" in text
    moved = [float((trained.state_dict()[key] - state[key]).abs().max()) for key in state if "running" not in key]
    assert 0 < max(moved) < 1e-3


def test_a_recipe_with_patience_keeps_a_split_for_it(tmp_path, own):
    train = {"epochs": 1, "batch_size": 64, "lr": 1e-6, "patience": 1, "methods": ["slimming", f"{own}:Pull"]}
    changed = recipe(tmp_path, train={**train, "methods": ["slimming"]})
    _, text, runner = dense_of(changed, tmp_path / "store")
    assert "accuracy on the validation split was best" in text
    data = runner.value("data")
    assert len(data.train) + len(data.validation) == 1437
    assert not recipe(tmp_path).validates
    with_own = recipe(tmp_path, train=train)
    stage = next(entry for entry in runner.stages if entry.name == "train")
    before = stage.spec(with_own)["code"]
    text = own.read_text()
    own.write_text(text + "# another\n")
    assert stage.spec(with_own)["code"] != before
    own.write_text(text)


def test_a_training_method_takes_one_file(tmp_path, monkeypatch):
    """CONTRIBUTING's, as it stands there."""
    (tmp_path / "shrinking_method.py").write_text(BLOCKS["shrinking_method.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    with TRAINING_METHODS.restored():
        __import__("shrinking_method")
        spec = {"epochs": 4, "batch_size": 32, "lr": 0.03, "opt": "sgd"}
        sizes = []
        for name, strength in (("without", 0.0), ("with", 0.3)):
            methods = [{"method": "shrinking", "strength": strength}]
            model = fit(
                network(), TensorDataset(*samples()), TrainSpec(**spec, methods=methods), seed=0,
                checkpoint=tmp_path / name,
            )  # fmt: skip
            sizes.append(float(model[1].weight.abs().sum()))
        assert isinstance(model[1], nn.BatchNorm2d)
        assert sizes[1] < 0.5 * sizes[0]
    sys.modules.pop("shrinking_method")
