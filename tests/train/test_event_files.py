"""Event files of a training for TensorBoard: with it, with a writer of ours in its place, and without it."""

import io
import json
import sys
from importlib import metadata
from types import ModuleType

import pytest
from rich.console import Console
from torch.utils.data import TensorDataset

from structprune.data import Data
from structprune.progress import Reporter
from structprune.recipe import TrainSpec
from structprune.tasks.building import make_task
from structprune.train import train_stage
from structprune.train.event_files import EventFiles
from structprune.train.method import TrainingMethod
from structprune.train.stage import TrainingSettings
from structprune.train.trainer import EpochFigures
from tests.train.small_training import network, samples

IMAGES, LABELS = samples()
FIGURES = [EpochFigures(1, 0.5, 0.1, "accuracy", 0.25), EpochFigures(2, 0.25, 0.01)]


class Killed(TrainingMethod):
    """Is killed after an epoch, once its figures are logged."""

    def __init__(self, epoch):
        self.epoch = epoch

    def state(self):
        if self.epoch is not None and self.updates == self.epoch:
            raise KeyboardInterrupt
        return self.updates

    def restore(self, state):
        self.updates = state

    def start(self, training):
        self.updates = 0

    def after_epoch(self, model, epoch):
        self.updates = epoch


def train(folder, events, killed_after=None):
    """Trains for three epochs, with a validation split. Returns the rows of epochs.json."""
    held_out = TensorDataset(IMAGES[:64], LABELS[:64])
    data = Data(
        example=IMAGES[:1], labelled=True, train=TensorDataset(IMAGES[64:], LABELS[64:]), test=held_out,
        validation=held_out,
    )  # fmt: skip
    spec = TrainSpec(epochs=3, batch_size=64, lr=0.01, keep_best=True)
    settings = TrainingSettings(spec, folder, "dense", 0, methods=(Killed(killed_after),))
    train_stage(settings, network(), data, make_task(), Reporter(Console(file=io.StringIO())), events=events)
    return json.loads((folder / "dense.epochs.json").read_text())


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_figures_of_each_epoch_are_there_once_after_an_interruption(tmp_path, elsewhere):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tmp_path / "before", killed_after=2)
    shown = accumulators.EventAccumulator(str(tmp_path / "before")).Reload()
    assert [event.step for event in shown.Scalars("train_loss")] == [1, 2]  # while it trains
    events = tmp_path / ("after" if elsewhere else "before")
    rows = train(tmp_path, events)
    shown = accumulators.EventAccumulator(str(events)).Reload()
    for name, key in (("train_loss", "train_loss"), ("lr", "lr"), ("eval_accuracy", "value")):
        scalars = shown.Scalars(name)
        assert [event.step for event in scalars] == [1, 2, 3]
        assert [event.value for event in scalars] == pytest.approx([row[key] for row in rows])


class Writer:
    """Notes what it is called with."""

    def __init__(self, folder, purge_step):
        self.calls = [("open", folder, purge_step)]
        written.append(self)

    def add_scalar(self, *arguments):
        self.calls.append(arguments)

    def flush(self):
        self.calls.append("flush")

    def close(self):
        self.calls.append("close")


written = []


@pytest.fixture
def installed(monkeypatch):
    """TensorBoard in a version of ours."""
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(metadata, "version", lambda name: "2.14")
    written.clear()
    return module


def test_what_is_written_when(installed):
    files, lines = EventFiles("folder"), []
    files.write(FIGURES[:1])
    (writer,) = written
    first = [("train_loss", 0.5, 1), ("lr", 0.1, 1), ("eval_accuracy", 0.25, 1), "flush"]
    second = [("train_loss", 0.25, 2), ("lr", 0.01, 2), "flush"]
    assert writer.calls == [("open", "folder", 1), *first]
    files.write(FIGURES)
    files.close()
    assert writer.calls == [("open", "folder", 1), *first, *second, "close"]
    again = EventFiles("folder", lines.append)  # on from a checkpoint, after the first epoch
    again.write(FIGURES)
    assert written[1].calls == [("open", "folder", 1), *first[:-1], *second]
    EventFiles(None).write(FIGURES)
    assert len(written) == 2
    assert lines == []


def test_nothing_is_written_or_said_without_it_and_one_that_is_broken_is_named(installed, monkeypatch, tmp_path):
    lines = []
    del installed.SummaryWriter
    files = EventFiles(tmp_path / "events", lines.append)
    files.write(FIGURES[:1])
    files.write(FIGURES)
    assert len(lines) == 1
    assert lines[0].startswith("tensorboard is installed and can't be used (ImportError: cannot import name")

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    files = EventFiles(tmp_path / "events", lines.append)
    files.write(FIGURES)
    files.close()
    assert len(lines) == 1
    assert not (tmp_path / "events").exists()
