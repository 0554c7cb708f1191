"""One training loop on Accelerate, with timm's optimisers and schedules, that resumes to the same result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..copying import release
from ..data.loading import Stream, check_readable, data_loader, guarded, is_dataset
from ..errors import RecipeError, TrainingError
from ..modules import tensors
from ..seeds import derived
from ..tasks import Task
from ..tasks.building import make_task
from ..user_code import Tell
from ..user_code_calls import in_one_line
from .checkpoint import restore, store
from .method import TrainingMethod, make_method
from .spec import TrainSpec
from .stopping import EarlyStopping

_SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP")  # Accelerate's names

Progress = Callable[[int, int, dict[str, float]], None]  # step, steps in all, what to show


def fit(
    model: nn.Module,
    train: Dataset | DataLoader,
    spec: TrainSpec,
    *,
    task: Task | None = None,
    validation: Stream | None = None,
    seed: int,
    checkpoint: Path,
    progress: Progress = lambda step, steps, shown: None,
    workers: int = 0,
    what: str = "the network",
    tell: Tell = lambda line: None,
) -> nn.Module:
    """Trains `model` in place by a task's loss and returns it, on the CPU and in evaluation mode.

    Runs where Accelerate says: on its device, and under `accelerate launch` on all of its processes, which average
    their gradients. Each epoch is seeded by its number, so an interrupted run ends with the weights of an uninterrupted
    one.

    Args:
        model: the network; its parameters and buffers change.
        train: a Dataset, of which batches of `spec.batch_size` are drawn anew each epoch and the rest left out; or a
            DataLoader, which makes its own.
        spec: epochs, optimiser, schedule and methods.
        task: how batches become inputs and targets, and the loss; by default classification.
        validation: what `spec.patience` is measured on; never what is held out.
        seed: decides order, dropout and augmentation.
        checkpoint: a file (safetensors) that gets weights and states after every epoch; training goes on from it.
        progress: is called after every step.
        workers: processes that read the data.
        what: the network's name in messages.
        tell: gets a line that says which file of the user's is run, and what methods have to say.

    Returns:
        `model`.

    Raises:
        RecipeError: the data does not fit, or has fewer samples than a batch.
        TrainingError: the loss or a weight is no longer finite, or the network or the task raises.
    """
    task = task or make_task()
    course = _begun(model, train, spec, task, seed, workers, what, progress)
    course.methods = _methods(spec, task, validation, workers, tell)
    for method in course.methods:
        method.start(model, course.optimizer)
    for epoch in range(restore(checkpoint, model, course.optimizer, course.take), spec.epochs):
        if any(method.over for method in course.methods):
            break
        course.epoch(epoch)
        check_readable(train)
        course.save(checkpoint, epoch)
    for method in course.methods:
        method.finish(model)
        if method.note:
            tell(method.note)
    return course.end()


def _begun(
    model: nn.Module,
    train: Dataset | DataLoader,
    spec: TrainSpec,
    task: Task,
    seed: int,
    workers: int,
    what: str,
    progress: Progress,
) -> _Course:
    """A training that is ready for its first epoch, except for its methods."""
    from accelerate import Accelerator
    from accelerate.utils import set_seed
    from timm.optim import create_optimizer_v2

    accelerator = Accelerator()
    if (kind := accelerator.distributed_type.value) in _SHARDED:
        raise RecipeError(
            f"training under {kind} leaves each process a part of the weights, and a network is cut from whole ones: "
            "launch it with data parallelism alone (accelerate launch --multi_gpu)"
        )
    for part in model.modules():
        release(part)  # another's marks: it would be neither moved nor wrapped
    set_seed(derived(seed))
    loader = _loader(train, spec, task, workers)
    optimizer = create_optimizer_v2(model, opt=spec.optimizer, lr=spec.lr, weight_decay=spec.weight_decay)
    wrapped, prepared, loader = accelerator.prepare(model, optimizer, loader)
    steps = len(loader)
    if not steps:
        raise RecipeError(f"batch_size={spec.batch_size} is more than the {len(train)} training images")  # type: ignore[arg-type]
    schedule = _schedule(optimizer, spec, steps)
    return _Course(
        accelerator, model, wrapped, optimizer, prepared, loader, schedule, task, spec, seed, steps, what, progress
    )


@dataclass
class _Course:
    """What the epochs of one training have in common. `wrapped`, `prepared` and `loader` are what Accelerate runs."""

    accelerator: Any
    model: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    prepared: Any
    loader: Any
    schedule: Any
    task: Task
    spec: TrainSpec
    seed: int
    steps: int
    what: str
    progress: Progress
    methods: Sequence[TrainingMethod] = ()

    def take(self, states: list[Any]) -> None:
        """Gives the methods the states that a checkpoint holds."""
        for method, state in zip(self.methods, states, strict=True):
            method.restore(state)

    def save(self, checkpoint: Path, epoch: int) -> None:
        """Writes what training goes on from after `epoch`. Raises TrainingError for weights that are not finite."""
        _check_weights(self.model, self.spec, epoch, self.what)
        if self.accelerator.is_main_process:
            store(checkpoint, self.model, self.optimizer, epoch + 1, [method.state() for method in self.methods])
        self.accelerator.wait_for_everyone()

    def end(self) -> nn.Module:
        """The trained network, without what Accelerate hangs on a module: a network cut from this one would be taken
        for prepared (see `copying`)."""
        from accelerate.utils import broadcast

        if self.accelerator.num_processes > 1:
            for buffer in self.model.buffers():  # the last step's statistics are each process's own
                buffer.copy_(broadcast(buffer))
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        for part in self.model.modules():
            release(part)
        self.model.zero_grad()
        return self.model.cpu().eval()

    def epoch(self, epoch: int) -> None:
        """One pass over the data. Raises RecipeError and TrainingError."""
        from accelerate.utils import set_seed

        set_seed(derived(self.seed, epoch))
        self.wrapped.train()
        failed = f"training {self.what} failed in epoch {epoch + 1} of {self.spec.epochs}"
        for step, raw in enumerate(guarded(self.loader)):
            update = epoch * self.steps + step
            if self.schedule is not None:
                self.schedule.step_update(update)
            with in_one_line(TrainingError, failed):
                shown = self._step(raw, epoch)
            self.progress(update + 1, self.spec.epochs * self.steps, {"epoch": epoch + 1, "loss": shown})
        with in_one_line(TrainingError, failed):
            for method in self.methods:
                method.after_epoch(self.model, epoch + 1)

    def _step(self, raw: Any, epoch: int) -> float:
        """One training step. Returns the task's loss before it."""
        batch = self.task.batch(raw, training=True)
        outputs = batch.inputs.call(self.wrapped)
        _check(self.task, outputs, batch.labels)
        loss = self.task.loss(outputs, batch.labels)
        shown = _finite(self.accelerator, loss.detach(), self.spec, epoch, self.what)
        for method in self.methods:
            loss = method.loss(self.model, loss)
        self.prepared.zero_grad()
        self.accelerator.backward(loss)
        if self.methods:
            self.accelerator.unscale_gradients(self.prepared)
        for method in self.methods:
            method.after_backward(self.model)
        self.prepared.step()
        for method in self.methods:
            method.after_step(self.model)
        return shown


def _methods(spec: TrainSpec, task: Task, validation: Stream | None, workers: int, tell: Tell) -> list[TrainingMethod]:
    """The spec's methods; early stopping is the last, so that it measures what the others leave."""
    methods = [make_method(each, tell) for each in spec.methods]
    if spec.patience is None:
        return methods
    if validation is None:
        raise RecipeError("patience needs a validation split, and the data has none: leave patience out")
    return [*methods, EarlyStopping(spec.patience, task, validation, workers)]


def _loader(train: Any, spec: TrainSpec, task: Task, workers: int) -> DataLoader:
    if isinstance(train, DataLoader):
        return train
    if not is_dataset(train):
        raise RecipeError(
            f"training data is a {type(train).__name__}: give a torch Dataset with a length, or a DataLoader"
        )
    if not len(train):
        raise RecipeError("there is no training data: give at least one batch")
    return data_loader(train, spec.batch_size, task.collate, workers=workers, shuffle=True, drop_last=True)


def _schedule(optimizer: torch.optim.Optimizer, spec: TrainSpec, steps: int) -> Any:
    """timm's schedule, updated by steps, or None where the learning rate stays."""
    from timm.scheduler import create_scheduler_v2

    if spec.schedule != "cosine":
        return None
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=spec.epochs,
        warmup_epochs=spec.warmup_epochs,
        warmup_lr=spec.lr / 100,
        min_lr=spec.lr / 100,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    return schedule


def _check(task: Task, outputs: Any, targets: Any) -> None:
    """Raises RecipeError for data without labels and for targets that can't be the outputs'."""
    if targets is None:
        raise RecipeError("training needs labels, and the data gives inputs alone: give (input, label) pairs")
    task.check(outputs, targets)


def _finite(accelerator: Any, loss: Tensor, spec: TrainSpec, epoch: int, what: str) -> float:
    """The loss as a number. Raises TrainingError, in all processes at once, if it is not finite in one of them."""
    losses = accelerator.gather(loss.reshape(1)) if accelerator.num_processes > 1 else loss
    if not bool(torch.isfinite(losses).all()):
        raise _diverged(
            f"its loss was {float(losses.flatten()[~torch.isfinite(losses.flatten())][0])}", spec, epoch, what
        )
    return float(loss)


def _check_weights(model: nn.Module, spec: TrainSpec, epoch: int, what: str) -> None:
    for key, tensor in tensors(model).items():
        if tensor.is_floating_point() and not math.isfinite(float(tensor.detach().sum())):
            if bool(torch.isfinite(tensor).all()):
                continue  # the sum alone is too large
            raise _diverged(f"{key} holds NaN or infinite values", spec, epoch, what)


def _diverged(problem: str, spec: TrainSpec, epoch: int, what: str) -> TrainingError:
    advice = [f"a lower lr than {spec.lr:g}"]
    if not spec.warmup_epochs and spec.epochs > 1 and spec.schedule == "cosine":
        advice.append("warmup_epochs=1")
    if spec.optimizer != "adamw":
        advice.append("optimizer=adamw")
    return TrainingError(
        f"training {what} diverged in epoch {epoch + 1} of {spec.epochs}: {problem}. Try {', '.join(advice)}"
    )
