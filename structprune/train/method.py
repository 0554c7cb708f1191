"""What a method adds to training: to a batch, to the loss, after backward, after an update, after an epoch.

A method is one file in `methods/`: a spec beside a class that extends `TrainingMethod`. A user's own is named in the
recipe as `file.py:Class`. It knows nothing of recipes, and the trainer knows no method.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SerializeAsAny

from .. import user_code
from ..errors import RecipeError
from ..registry import SpecRegistry
from ..strict_specs import Strict
from ..user_code_calls import CodeName, made_by

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..calibration import Batch
    from ..ops import Inputs
    from ..plan.budget import Cost
    from ..recipe import PruneSpec
    from ..records import Plan
    from ..tasks import Task
    from ..typing import Form


class MethodSpec(Strict):
    """A training method in a recipe. `method` is registered, or `file.py:Class`."""

    needs_labels: ClassVar[bool] = True  # False where the method gives a loss of its own for data without labels
    needs_dense: ClassVar[bool] = False  # whether it learns from the dense network, so that it is of `finetune` alone
    exact_weights: ClassVar[bool] = False  # whether it sets weights that an average of weights would undo
    plans: ClassVar[bool] = False  # whether it plans the cut that follows, for which it gets a `ComingCut`

    method: str

    def before_cut(self, prune: PruneSpec) -> MethodSpec:
        """The spec with what it takes from the recipe's `prune`, where it is of `train`.

        Raises ValueError where it needs what `prune` does not have.
        """
        return self

    def cautions(self, prune: PruneSpec) -> Iterator[str]:
        """Yields what the user should know of the method beside this `prune`, once `before_cut` has been called."""
        yield from ()


class OwnMethodSpec(MethodSpec):
    """A training method of the user's own: `method` is `file.py:Class`, made with `kwargs`."""

    needs_labels: ClassVar[bool] = False  # its class says (`gives_loss`), once it is made

    method: CodeName = Field(description="`file.py:Class`")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="arguments of the class")


@dataclass(frozen=True)
class ComingCut:
    """What is known of the cut that follows a training.

    Attributes:
        form: that of the slim network.
        multiples: of widths, on the runtime; None: those of this machine's onnxruntime.
        cost: what widths cost on the runtime, where a budget is of speed.
    """

    form: Form = "module"
    multiples: Mapping[str, int] | None = None
    cost: Cost | None = None


UNKNOWN_CUT = ComingCut()


@dataclass(frozen=True)
class Training:
    """The training that a method is part of.

    Attributes:
        model: the plain network, whatever wraps it on several devices.
        optimizer: timm's, over the parameters of `model`.
        task: what the network is for.
        epochs: how many there are in all.
        updates: how many updates of the weights an epoch has.
        seed: what a method's own random numbers derive from.
        make_example: gives the inputs of one sample, as the network takes them; see `example`.
        make_batches: gives the batches of an epoch, in every process all; see `reestimate_statistics`.
        dense: the network that `model` was cut from; None where there is none.
        plan: by which it was cut; None where nothing was, or where that is not known.
        cut: what is known of the cut that follows.
        autocast: makes a context in which networks compute in the precision of the training.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    task: Task
    epochs: int
    updates: int
    seed: int
    make_example: Callable[[], Inputs] = field(repr=False)
    make_batches: Callable[[], Iterator[Batch]] = field(repr=False)
    dense: nn.Module | None = None
    plan: Plan | None = None
    cut: ComingCut = UNKNOWN_CUT
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def example(self) -> Inputs:
        """Inputs of the training data, for methods that trace the network."""
        return self.make_example()

    def reestimate_statistics(self) -> None:
        """Takes the statistics of BatchNorms anew on training data, after weights were set that no update has seen."""
        from .statistics import reestimate_statistics

        reestimate_statistics(self.model, self.make_batches())

    def taught_by(self, method: str) -> nn.Module:
        """The dense network, in evaluation mode, on the device of `model`. Raises RecipeError where there is none."""
        if self.dense is None:
            raise RecipeError(f"method {method} learns from the dense network, and there is none: use it in finetune")
        device = next((tensor.device for tensor in self.model.parameters()), None)
        return self.dense.to(device).eval()


@contextmanager
def device_kept(dense: nn.Module | None) -> Iterator[None]:
    """The dense network is in the end where it was, wherever methods have taken it (`Training.taught_by`)."""
    device = None if dense is None else next((tensor.device for tensor in dense.parameters()), None)
    try:
        yield
    finally:
        if dense is not None and device is not None:
            dense.to(device)


@dataclass(frozen=True)
class Step:
    """One forward pass of training.

    Attributes:
        model: the plain network.
        batch: its inputs, and the labels or None.
        outputs: what the network gave.
        loss: the mean loss of the batch: the task's (0 without labels), with what the methods before have added.
        update: how many updates of the weights came before, from the first epoch on.
    """

    model: nn.Module
    batch: Batch
    outputs: Any
    loss: Tensor
    update: int


class TrainingMethod:
    """The base of all methods, which adds nothing. A subclass overrides what it changes.

    The model is always the plain one, whatever wraps it on several devices; its gradients are those of all processes.
    """

    over = False  # set where training is to end with this epoch
    note = ""  # a line for the user at the end
    gives_loss = False  # whether it gives a loss for data without labels
    settled = True  # False while the network is on the way to another: its epochs are no candidates for the best

    def start(self, training: Training) -> None:
        """Before the first update; a training that goes on from a checkpoint calls `restore` next."""

    def lr_factor(self, update: int) -> float:
        """What the schedule's learning rate is multiplied by for an update, counted from 0 over all epochs."""
        return 1.0

    def mix(self, batch: Batch) -> Batch:
        """The batch to train on, in place of the one that was drawn."""
        return batch

    def loss(self, step: Step) -> Tensor:
        """The loss to train by, in place of `step.loss`."""
        return step.loss

    def after_backward(self, model: nn.Module) -> None:
        """Called with the gradients of an update, which it may change."""

    def after_step(self, model: nn.Module) -> None:
        """Called with the weights after an update, which it may change."""

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Called after each epoch, counted from 1, before the checkpoint is written."""

    def finish(self, model: nn.Module) -> None:
        """After the last epoch: the weights that are left here are those of the trained network."""

    def state(self) -> Any:
        """What `restore` needs to go on exactly: tensors and plain values in dicts, lists and tuples."""
        return None

    def restore(self, state: Any) -> None:
        """Goes on from what `state` returned after an epoch."""


@dataclass(frozen=True)
class MethodKind:
    """A registered training method: `make` builds it from its `spec`."""

    name: str
    description: str
    spec: type[MethodSpec]
    make: Callable[[Any], TrainingMethod] = field(repr=False)


TRAINING_METHODS: SpecRegistry[MethodKind] = SpecRegistry(
    "training method", "structprune.train.methods", "TRAINING_METHODS"
)
AnyMethodSpec = Annotated[SerializeAsAny[MethodSpec], BeforeValidator(TRAINING_METHODS.parser("method", OwnMethodSpec))]


def make_method(spec: MethodSpec, tell: user_code.Tell) -> TrainingMethod:
    """The method of a spec. Raises RecipeError for code of the user's that can't be used."""
    if not isinstance(spec, OwnMethodSpec):
        return TRAINING_METHODS[spec.method].make(spec)
    method = made_by(spec.method, "methods", spec.kwargs, tell)
    if not isinstance(method, TrainingMethod):
        raise RecipeError(
            f"methods: {spec.method} makes a {type(method).__name__}: give a class that extends "
            "structprune.train.method.TrainingMethod"
        )
    return method


def code_of(specs: Sequence[MethodSpec]) -> list[str]:
    """The text of the files that methods come from, and of what those of this package share: the trained weights
    depend on it."""
    texts = []
    shared = sorted(Path(__file__).parent.glob("*.py")) if any(not isinstance(s, OwnMethodSpec) for s in specs) else []
    for spec in specs:
        if isinstance(spec, OwnMethodSpec):
            files = user_code.files_of(spec.method)
        else:
            file = inspect.getsourcefile(TRAINING_METHODS[spec.method].spec)
            files = [Path(file)] if file else []
        texts += [path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file()]
    return texts + [path.read_text(encoding="utf-8") for path in shared]
