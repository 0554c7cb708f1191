"""`recover`: the methods that win back what pruning costs, without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from ..argument_checks import checked, function, instance, number, optional, several, whole
from ..calibration import WritableNetwork, batches_of
from ..errors import RecipeError
from ..memory_limits import LIMIT, allocation_failed
from ..modules import evaluating, tensors
from ..ops import Inputs, outputs
from ..process_state import memory_reused
from ..recipe.recovery import AnyRecoverySpec, RecoverySpec, check_order
from ..records import Plan
from ..strict_specs import mistakes
from ..surgery import wrong_shape
from ..tasks.task import Task
from ..typing import RecoveryStep
from ..wrappers import unwrapped
from .recovery import Mending, mend_by

_STEPS: TypeAdapter[list[RecoverySpec]] = TypeAdapter(list[AnyRecoverySpec])


@dataclass
class Recovered:
    """`model`, the mended slim network; `layers`, for each method how many layers it changed; `notes`, what a user
    should know."""

    model: nn.Module
    layers: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@checked(
    model=instance(nn.Module, "the dense nn.Module"),
    slim=instance(nn.Module, "the slim nn.Module"),
    plan=instance(Plan, "the plan that slim was made by"),
    steps=several(lambda step: step, "names of methods or mappings, in a list"),
    task=optional(instance(Task, "a Task of structprune.tasks")),
    seed=whole(0, 2**31),
    memory=number(above=0),
    progress=function,
)
def recover(
    model: nn.Module,
    slim: nn.Module,
    plan: Plan,
    data: Any,
    steps: Sequence[RecoveryStep | RecoverySpec] = ("means", "least_squares"),
    *,
    task: Task | None = None,
    seed: int = 0,
    memory: float = LIMIT,
    progress: Callable[[float], None] = lambda share: None,
) -> Recovered:
    """A copy of `slim` that makes up for the removed channels, without labels, by methods with or without options:

    - `means`, or {"method": "means", "source": "batchnorm"}: removed channels leave their mean in consumers' offsets;
    - `least_squares`, or {"method": "least_squares", "weights": "scales", "ridge": 0.1}: weights behind the cut are
      fitted to the dense network's outputs, layer by layer; `temperature`: class scores get one factor, to be as sure;
    - `batchnorm`: running means and variances are taken anew; `polish`: a short training, first block by block;
    - {"method": "file.py:function", "kwargs": {…}}: a recovery of your own (see CONTRIBUTING.md).

    Args:
        model: the dense network that `slim` was cut from.
        slim: the network that is to be mended.
        plan: the plan that it was cut by.
        data: calibration data (see `calibration.batches_of`).
        steps: methods, in the order in which they are done.
        task: what the outputs are for; by default class scores.
        seed: draws the rows that are looked at.
        memory: bytes that may come on top of the networks, the images and a forward pass; notes say what is left out.
        progress: is called with the share that is done.

    Returns:
        The mended copy, how many layers each method changed, and notes.

    Raises:
        RecipeError: methods are unknown or in an order that can't work, or `slim` is not what the plan makes.

    Example:
        >>> sp.recover(model, slim, plan, images, ["means", "least_squares"]).layers
        [2, 2]
    """
    specs = _read(steps)
    model, slim = unwrapped(model), unwrapped(slim)
    if wrong := wrong_shape(tensors(slim), plan, "slim"):
        raise RecipeError(f"recover: {wrong}")
    batches = [batch.beside(model) for batch in batches_of(data)]
    dense, mended = (WritableNetwork.of(network, batches[0].inputs) for network in (model, slim))
    mending = Mending(dense, mended, plan, batches, seed, memory, task=task)
    result = Recovered(mended.result)
    for index, spec in enumerate(specs):

        def at(share: float, index: int = index) -> None:
            progress((index + share) / len(specs))

        mending.progress = at
        result.layers.append(_mend(spec, mending))
    result.notes = list(dict.fromkeys(mending.slim.notes))
    _check(result.model, plan, batches[0].inputs)
    return result


def _read(steps: Sequence[Any]) -> list[RecoverySpec]:
    """The specs of methods. Raises RecipeError for unknown ones and for an order that can't work."""
    try:
        specs = _STEPS.validate_python(list(steps))
        check_order(specs)
    except ValidationError as error:
        problem, _ = next(mistakes(error))
        raise RecipeError(f"recover: {problem['msg'].removeprefix('Value error, ')}") from error
    except ValueError as error:
        raise RecipeError(f"recover: {error}") from error
    return specs


@memory_reused()
def _mend(spec: RecoverySpec, mending: Mending) -> int:
    """Mends by one method. Returns how many layers that changed, and notes what a user should know."""
    mending.progress(0.0)
    notes, changed = mending.slim.notes, 0
    before = len(notes)
    try:
        changed = mend_by(spec, mending)
    except Exception as error:
        if not allocation_failed(error):
            raise
        notes.append(
            f"{spec.method} was broken off, as there is no memory left: give fewer images, in smaller batches (a "
            "list of tensors)"
        )
    if not changed and len(notes) == before:
        notes.append(f"{spec.method} changed nothing: no layer of this network can take it")
    return changed


def _check(model: nn.Module, plan: Plan, example: Inputs) -> None:
    """Raises RecipeError where tensors are no longer of the plan's shapes, or outputs are not finite."""
    if wrong := wrong_shape(tensors(model), plan, "slim"):
        raise RecipeError(f"recover: {wrong}")
    with evaluating(model):
        if not all(bool(x.isfinite().all()) for x in outputs(example.call(model))):
            raise RecipeError("recovery made outputs that are not finite: give more calibration images, or set ridge")
