"""The trainer: one loop on Accelerate for any task, with timm's parts, that resumes to the same result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..copying import release
from ..data.loading import Stream, check_readable, guarded
from ..errors import RecipeError, TrainingError
from ..launch import accelerator_of
from ..modules import tensors
from ..records import Plan
from ..seeds import derived
from ..tasks import Task
from ..tasks.building import make_task
from ..user_code import Tell
from ..user_code_calls import in_one_line
from .averaging import AveragedWeights
from .batches import check_shares, example_of, let_seed_decide, lists_of, loader_for
from .checkpoint import check_plain, restore, store
from .memory_format import channels_last
from .method import UNKNOWN_CUT, ComingCut, Step, Training, TrainingMethod, device_kept, make_method
from .mixing import MixedSamples
from .optimisation import ClippedGradients, make_optimizer, make_schedule
from .spec import TrainSpec
from .validation import Validation

_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", None: "no"}  # Accelerate's names

Progress = Callable[[int, int, dict[str, float]], None]  # forward pass, how many in all, what to show


@dataclass(frozen=True)
class EpochFigures:
    """What is known of an epoch, counted from 1: the mean loss, the last learning rate, a metric of validation."""

    epoch: int
    train_loss: float
    lr: float
    metric: str = ""
    value: float | None = None


def fit(
    model: nn.Module,
    train: Dataset | DataLoader,
    spec: TrainSpec,
    *,
    task: Task | None = None,
    validation: Stream | None = None,
    dense: nn.Module | None = None,
    plan: Plan | None = None,
    cut: ComingCut = UNKNOWN_CUT,
    seed: int,
    checkpoint: Path,
    progress: Progress = lambda step, steps, shown: None,
    log: Callable[[Sequence[EpochFigures]], None] = lambda figures: None,
    workers: int = 0,
    what: str = "the network",
    until: int | None = None,
    methods: Sequence[TrainingMethod] = (),
    tell: Tell = lambda line: None,
) -> nn.Module:
    """Trains `model` in place by a task's loss and returns it, on the CPU and in evaluation mode.

    Runs on Accelerate's device, and under `accelerate launch` in all processes, which share each batch and average
    their gradients. An interrupted training ends with the weights of an uninterrupted one.

    Args:
        model: the network; its parameters and buffers change.
        train: a Dataset, whose batches are drawn anew each epoch, the rest left out; or a DataLoader.
        spec: epochs, optimiser, schedule and methods.
        task: how batches become inputs and targets, and the loss; by default classification.
        validation: what is measured on between epochs; never what is held out.
        dense: the network that `model` was cut from, for methods that learn from it.
        plan: by which it was cut, for methods that hold its channels against the dense network's.
        cut: the cut that follows, for methods that plan it.
        seed: decides order, dropout and augmentation.
        checkpoint: a file (safetensors) that gets weights and states after every epoch; training goes on from it.
        progress: is called after every forward pass.
        log: is called after every epoch with the figures of all so far.
        workers: processes that read the data.
        what: the network's name in messages.
        until: ends after this epoch, with the weights that the whole training has then.
        methods: further ones, before those of `spec`.
        tell: gets a line on each file of the user's that is run, and on what methods have to say.

    Returns:
        `model`.

    Raises:
        RecipeError: the data does not fit, or has fewer samples than a batch.
        TrainingError: the loss or a weight is no longer finite, or the network or the task raises.
    """
    task = task or make_task()
    trainer = _begun(model, train, spec, task, seed, workers, what, progress)
    trainer.methods = _methods(spec, methods, task, validation, workers, tell)
    with device_kept(dense), channels_last(model, dense, active=spec.channels_last):
        trainer.start(train, dense, plan, cut)
        return _trained(trainer, train, checkpoint, until, log, tell)


def _trained(
    trainer: _Trainer,
    train: Any,
    checkpoint: Path,
    until: int | None,
    log: Callable[[Sequence[EpochFigures]], None],
    tell: Tell,
) -> nn.Module:
    model, spec = trainer.model, trainer.spec
    for epoch in range(restore(checkpoint, model, trainer.optimizer, trainer.take), until or spec.epochs):
        if any(method.over for method in trainer.methods):
            break
        trainer.epoch(epoch)
        check_readable(train)
        log(trainer.figures)  # before the checkpoint, so that none that goes on lacks an epoch
        trainer.save(checkpoint, epoch)
    for method in trainer.methods if until is None else ():
        method.finish(model)
        if method.note:
            tell(method.note)
    return trainer.end()


def _begun(
    model: nn.Module,
    train: Dataset | DataLoader,
    spec: TrainSpec,
    task: Task,
    seed: int,
    workers: int,
    what: str,
    progress: Progress,
) -> _Trainer:
    """A training that is ready for its first epoch, except for its methods."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DataLoaderConfiguration, set_seed

    AcceleratorState._reset_state()  # an earlier training's precision; processes stay as they are
    accelerator = accelerator_of(
        mixed_precision=_PRECISIONS[spec.amp_dtype],
        dataloader_config=DataLoaderConfiguration(split_batches=True),  # a batch is as large as with one process
    )
    check_shares(spec, accelerator.num_processes)
    for part in model.modules():
        release(part)  # another's marks: it would be neither moved nor wrapped
    if spec.grad_checkpointing:
        _set_checkpointing(model, on=True)
    set_seed(derived(seed))
    source = loader_for(train, spec, task, workers)
    optimizer = make_optimizer(model, spec)
    wrapped, prepared, loader = accelerator.prepare(model, optimizer, source)
    let_seed_decide(source)
    passes = len(loader)
    if not passes:
        raise RecipeError(f"batch_size={spec.batch_size} is more than the {len(train)} training images")  # type: ignore[arg-type]
    updates = math.ceil(passes / spec.grad_accum_steps)
    schedule = make_schedule(optimizer, spec, updates)
    return _Trainer(
        accelerator, model, wrapped, optimizer, prepared, source, loader, schedule, task, spec, seed, passes, updates,
        what, progress,
    )  # fmt: skip


@dataclass
class _Trainer:
    """What the epochs of one training have in common.

    `wrapped`, `prepared` and `loader` are what Accelerate runs, `loader` on this process's part of `source`. An epoch
    has `passes` forward passes and `updates` of the weights.
    """

    accelerator: Any
    model: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    prepared: Any
    source: DataLoader
    loader: Any
    schedule: Any
    task: Task
    spec: TrainSpec
    seed: int
    passes: int
    updates: int
    what: str
    progress: Progress
    methods: Sequence[TrainingMethod] = ()
    figures: list[EpochFigures] = field(default_factory=list)

    def start(self, train: Any, dense: nn.Module | None, plan: Plan | None, cut: ComingCut) -> None:
        """Shows the methods the training that they are part of."""
        training = Training(
            self.model, self.optimizer, self.task, self.spec.epochs, self.updates, self.seed,
            lambda: example_of(train, self.task, self.model), lambda: map(self.task.batch, guarded(self.source)), dense,
            plan, cut, self.accelerator.autocast,
        )  # fmt: skip
        for method in self.methods:
            method.start(training)
            check_plain(method.state(), f"training method {type(method).__name__}")  # and not after an epoch's work

    def take(self, states: list[Any]) -> None:
        """Gives the methods and the scaler of losses the states that a checkpoint holds."""
        figures, scaler, *states = states
        self.figures = [EpochFigures(**values) for values in figures]
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        for method, state in zip(self.methods, states, strict=True):
            method.restore(state)

    def save(self, checkpoint: Path, epoch: int) -> None:
        """Writes what training goes on from after `epoch`. Raises TrainingError for weights that are not finite."""
        _check_weights(self.model, self.spec, epoch, self.what)
        if self.accelerator.is_main_process:
            scaler = None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict()
            states = [[asdict(row) for row in self.figures], scaler, *(method.state() for method in self.methods)]
            store(checkpoint, self.model, self.optimizer, epoch + 1, states)
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
        if self.spec.grad_checkpointing:
            _set_checkpointing(self.model, on=False)
        self.model.zero_grad()
        return self.model.cpu().eval()

    def epoch(self, epoch: int) -> None:
        """One pass over the data. Raises RecipeError and TrainingError."""
        from accelerate.utils import set_seed

        set_seed(derived(self.seed, epoch))
        self.wrapped.train()
        failure = f"training {self.what} failed in epoch {epoch + 1} of {self.spec.epochs}"
        total = 0.0
        for index, raws in enumerate(lists_of(guarded(self.loader), self.spec.grad_accum_steps)):
            update = epoch * self.updates + index
            self._set_lr(update)
            with in_one_line(TrainingError, failure):
                for loss in self._update(raws, epoch, update):
                    total += loss
        lr = float(self.optimizer.param_groups[0]["lr"])
        with in_one_line(TrainingError, failure):
            for method in self.methods:
                method.after_epoch(self.model, epoch + 1)
        row = EpochFigures(epoch + 1, total / self.passes, lr)
        for method in self.methods:
            if isinstance(method, Validation) and method.metric is not None:
                row = replace(row, metric=method.metric.name, value=method.value)
        self.figures = [*self.figures, row]

    def _set_lr(self, update: int) -> None:
        """Sets the learning rate of an update: the schedule's, which it sets anew each time, times the methods'."""
        self.schedule.step_update(update)
        factor = math.prod(method.lr_factor(update) for method in self.methods)
        for group in self.optimizer.param_groups:
            group["lr"] *= factor

    def _update(self, raws: Sequence[Any], epoch: int, update: int) -> Iterator[float]:
        """One update of the weights by the mean loss of several batches. Yields their losses before it."""
        self.prepared.zero_grad()
        for place, raw in enumerate(raws):
            with ExitStack() as stack:
                if place < len(raws) - 1:  # processes exchange gradients once an update
                    stack.enter_context(self.accelerator.no_sync(self.wrapped))
                loss, shown = self._loss(raw, epoch, update)
                self.accelerator.backward(loss / len(raws))
            done = epoch * self.passes + (update - epoch * self.updates) * self.spec.grad_accum_steps + place + 1
            self.progress(done, self.spec.epochs * self.passes, {"epoch": epoch + 1, "loss": shown})
            yield shown
        if self.methods:
            self.accelerator.unscale_gradients(self.prepared)
        for method in self.methods:
            method.after_backward(self.model)
        self.prepared.step()
        for method in self.methods:
            method.after_step(self.model)

    def _loss(self, raw: Any, epoch: int, update: int) -> tuple[Tensor, float]:
        """The loss of a batch with what methods add, and the loss to show: the task's, or without labels the whole."""
        batch = self.task.batch(raw, training=True)
        for method in self.methods:
            batch = method.mix(batch)
        outputs = batch.inputs.call(self.wrapped)
        if batch.labels is None:
            self._check_unlabelled()
            loss = next(x for x in self.model.parameters()).new_zeros(())
        else:
            self.task.check(outputs, batch.labels)
            loss = self.task.loss(outputs, batch.labels)
        shown = loss.detach()
        for method in self.methods:
            loss = method.loss(Step(self.model, batch, outputs, loss, update))
        shown = loss.detach() if batch.labels is None else shown
        return loss, _finite(self.accelerator, shown, self.spec, epoch, self.what)

    def _check_unlabelled(self) -> None:
        if not any(method.gives_loss for method in self.methods):
            raise RecipeError(
                "training needs labels, and the data gives inputs alone: give (input, label) pairs, or train by a "
                "method with a loss of its own, such as methods: [distill]"
            )


def _methods(
    spec: TrainSpec,
    further: Sequence[TrainingMethod],
    task: Task,
    validation: Stream | None,
    workers: int,
    tell: Tell,
) -> list[TrainingMethod]:
    """The further methods, and the spec's between those that its keys ask for; validation is the last, to measure what
    others leave."""
    methods: list[TrainingMethod] = [make_method(each, tell) for each in spec.methods]
    if spec.mixes or spec.smoothing:
        methods.insert(0, MixedSamples(spec))
    if spec.clip_grad is not None:
        methods.append(ClippedGradients(spec.clip_grad, spec.clip_mode))
    average = AveragedWeights(spec.model_ema_decay, spec.model_ema_warmup) if spec.model_ema else None
    if average is not None:
        methods.append(average)
    methods = [*further, *methods]
    if validation is not None:
        return [*methods, Validation(spec, task, validation, workers, average, methods)]
    if spec.validates:
        raise RecipeError(
            "keep_best, patience and val_interval need a validation split, and the data has none: leave them out"
        )
    return methods


def _set_checkpointing(model: nn.Module, on: bool) -> None:
    """Turns timm's gradient checkpointing on or off. Raises RecipeError for a network that has none."""
    switch = getattr(model, "set_grad_checkpointing", None)
    if not callable(switch):
        raise RecipeError(
            f"grad_checkpointing needs a network with set_grad_checkpointing, as timm's have, and "
            f"{type(model).__name__} has none: leave it out"
        )
    with in_one_line(RecipeError, f"{type(model).__name__} can't do gradient checkpointing: leave it out"):
        switch(on)


def _finite(accelerator: Any, loss: Tensor, spec: TrainSpec, epoch: int, what: str) -> float:
    """The loss as a number. Raises TrainingError, in all processes at once, if it is not finite in one of them."""
    losses = accelerator.gather(loss.reshape(1)) if accelerator.num_processes > 1 else loss.reshape(1)
    if not bool(torch.isfinite(losses).all()):
        raise _diverged(f"its loss was {float(losses[~torch.isfinite(losses)][0])}", spec, epoch, what)
    return float(losses.mean())


def _check_weights(model: nn.Module, spec: TrainSpec, epoch: int, what: str) -> None:
    for key, tensor in tensors(model).items():
        if tensor.is_floating_point() and not math.isfinite(float(tensor.detach().sum())):
            if bool(torch.isfinite(tensor).all()):
                continue  # the sum alone is too large
            raise _diverged(f"{key} holds NaN or infinite values", spec, epoch, what)


def _diverged(problem: str, spec: TrainSpec, epoch: int, what: str) -> TrainingError:
    advice = [f"a lower lr than {spec.lr:g}"]
    if not spec.warmup_epochs and spec.epochs > 1:
        advice.append("warmup_epochs=1")
    if spec.opt != "adamw":
        advice.append("opt=adamw")
    return TrainingError(
        f"training {what} diverged in epoch {epoch + 1} of {spec.epochs}: {problem}. Try {', '.join(advice)}"
    )
