"""Training as a stage of a run: shown, logged, and done once whatever interrupts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from ..data import Data
from ..errors import RecipeError
from ..modules import replace_tensors, tensors
from ..process_state import memory_reused
from ..progress import Reporter
from ..records import Plan
from ..store import atomic_files
from ..tasks import Task
from .event_files import EventFiles
from .method import UNKNOWN_CUT, ComingCut, TrainingMethod
from .spec import TrainSpec
from .trainer import EpochFigures, Progress, fit

_ON = ", on from the weights that it came with"


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the training of a stage, beside the network, the data and the task.

    Attributes:
        spec: the recipe's `train` or `finetune`.
        folder: gets the weights and, meanwhile, the checkpoint.
        what: "dense" or "slim".
        seed: decides order, dropout and augmentation.
        until: the epoch after which it ends; None for all.
        cut: the cut that follows, for methods that plan it.
        methods: further ones, before those of `spec`, which no training has begun with.
    """

    spec: TrainSpec
    folder: Path
    what: str
    seed: int
    until: int | None = None
    cut: ComingCut = UNKNOWN_CUT
    methods: tuple[TrainingMethod, ...] = ()

    def fit(
        self,
        model: nn.Module,
        data: Data,
        task: Task,
        dense: nn.Module | None,
        plan: Plan | None = None,
        **reports: Any,
    ) -> nn.Module:
        """Trains a network in place, beside all other processes that call this.

        Args:
            model: The network; its parameters and buffers change.
            data: What to train on.
            task: The loss and the metrics.
            dense: The network that `model` was cut from, for methods that learn from it.
            plan: By which it was cut, for the same.
            reports: `progress`, `log` and `tell` of `fit`.

        Returns:
            The network.

        Raises:
            RecipeError: As `fit`.
            TrainingError: As `fit`.
        """
        assert data.train is not None
        with memory_reused():
            return fit(
                model, data.train, self.spec, task=task, validation=data.validation,
                dense=dense, plan=plan, cut=self.cut, seed=self.seed, workers=data.workers, until=self.until,
                checkpoint=self.folder / f"{self.what}.training.safetensors", what=f"the {self.what} network",
                methods=self.methods, **reports,
            )  # fmt: skip


def train_stage(
    settings: TrainingSettings,
    model: nn.Module,
    data: Data,
    task: Task,
    reporter: Reporter,
    *,
    going_on: bool = False,
    dense: nn.Module | None = None,
    plan: Plan | None = None,
    begin: Callable[[], None] = lambda: None,
    events: Path | None = None,
) -> Path:
    """Trains `model` in place, and writes its weights and a summary of its epochs (CSV) into the settings' folder.

    If the weights are there already, they are only read; an interrupted training goes on.

    Args:
        settings: what decides the training.
        model: the network; its parameters and buffers change.
        data: what to train on.
        task: the loss and the metrics.
        reporter: shows the progress.
        going_on: whether the network came with weights, which is said.
        dense: the network that `model` was cut from, for methods that learn from it.
        plan: by which it was cut, for the same.
        begin: is called before a training that is not done yet, to have other processes take part.
        events: a folder for TensorBoard's event files, where it is installed; None for none.

    Returns:
        The file of the weights.

    Raises:
        RecipeError: there is no training data with labels.
        TrainingError: training failed or diverged.
    """
    spec, what, folder = settings.spec, settings.what, settings.folder
    if data.train is None or (spec.needs_labels and not data.labelled):
        raise RecipeError(f"training the {what} network needs training data with labels: see `data`")
    final = folder / f"{what}.safetensors"
    if final.is_file():
        replace_tensors(model, load_file(final))
        return final
    verb, notes = "training" if what == "dense" else "fine-tuning", list[str]()
    reporter.stage(f"{verb} the {what} network{_ON if going_on else ''}, {_length(spec.epochs, settings.until)}")
    with reporter.bar(verb) as update, closing(EventFiles(events, notes.append)) as files:
        begin()
        settings.fit(
            model, data, task, dense, plan, progress=_shown_by(update), tell=notes.append,
            log=partial(_log, reporter, folder, what, files),
        )  # fmt: skip
    for note in notes:
        reporter.stage(note)
    return _write_weights(model, final)


def _log(reporter: Reporter, folder: Path, what: str, files: EventFiles, figures: Sequence[EpochFigures]) -> None:
    reporter.event("epoch", network=what, **asdict(figures[-1]))
    files.write(figures)
    write_summary(figures, folder / f"{what}.summary.csv")
    rows = [asdict(row) for row in figures]
    atomic_files.write_text(folder / f"{what}.epochs.json", json.dumps(rows))


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """What `train_stage` has written of each epoch: the fields of `EpochFigures`."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def _length(epochs: int, until: int | None) -> str:
    count = f"{epochs} epoch{'s' if epochs > 1 else ''}"
    return count if until is None else f"the first {until} of {count}"


def _shown_by(update: Callable[[float, str], None]) -> Progress:
    return lambda step, steps, shown: update(step / steps, f"epoch {shown['epoch']:.0f}, loss {shown['loss']:.3f}")


def _write_weights(model: nn.Module, path: Path) -> Path:
    weights = {key: tensor.detach().contiguous() for key, tensor in tensors(model).items()}
    atomic_files.write(path, lambda aside: save_file(weights, aside))
    return path


def write_summary(figures: Sequence[EpochFigures], path: Path) -> None:
    """Writes what is known of each epoch as timm's train.py writes its summary.csv: a line an epoch, counted from 0."""
    from timm.utils import update_summary

    def write(aside: Path) -> None:
        for row in figures:
            metric = {row.metric: "" if row.value is None else row.value} if row.metric else {}
            update_summary(row.epoch - 1, {"loss": row.train_loss}, metric, aside, lr=row.lr)

    atomic_files.write(path, write)
