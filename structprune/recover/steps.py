"""`recover`: the steps that win back what pruning costs, without labels and without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from ..calibration import Working, batches_of
from ..errors import RecipeError
from ..graph.capture import Inputs, outputs
from ..memory import LIMIT, allocation_failed
from ..modules import evaluating, tensors
from ..options import checked, function, instance, number, several, whole
from ..recipe import BatchNormSpec, LeastSquaresSpec, MeansSpec, RecoverSpec, check_order
from ..records import Plan
from ..surgery import wrong_shape
from ..wrappers import unwrapped
from .batchnorm import reestimate
from .least_squares import refit
from .means import fold_means

_STEPS: TypeAdapter[list[MeansSpec | LeastSquaresSpec | BatchNormSpec]] = TypeAdapter(list[RecoverSpec])


@dataclass
class Recovered:
    """`model`, the mended slim network; `layers`, for each step how many layers it changed; `notes`, what a user
    should know."""

    model: nn.Module
    layers: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@checked(
    model=instance(nn.Module, "the dense nn.Module"),
    slim=instance(nn.Module, "the slim nn.Module"),
    plan=instance(Plan, "the plan that slim was made by"),
    steps=several(lambda step: step, "names of steps or mappings, in a list"),
    seed=whole(0, 2**31),
    memory=number(above=0),
    progress=function,
)
def recover(
    model: nn.Module,
    slim: nn.Module,
    plan: Plan,
    data: Any,
    steps: Sequence[Any] = ("means", "least_squares"),
    *,
    seed: int = 0,
    memory: float = LIMIT,
    progress: Callable[[float], None] = lambda share: None,
) -> Recovered:
    """A copy of `slim` whose weights, biases and BatchNorm statistics make up for the removed channels.

    `model` is the dense network that `slim` was cut from by `plan`; `data` is calibration data (see
    `calibration.batches_of`); labels are not used. `steps` are names or mappings, in the order in which they are done:

    - `means`, or {"method": "means", "source": "batchnorm"}: removed channels leave their mean in consumers' offsets;
    - `least_squares`, or {"method": "least_squares", "weights": "scales", "ridge": 0.1}: consumers' weights are fitted
      to the dense network's outputs, layer by layer;
    - `batchnorm`: running means and variances are taken anew.

    `memory` bounds in bytes what comes on top of the networks, the images and a forward pass. Layers whose refit would
    take more are refitted in another way, and one for which nothing fits keeps its weights; `Recovered.notes` tells.
    Raises RecipeError for steps that are unknown or in an order that can't work.
    """
    try:
        checked = _STEPS.validate_python(list(steps))
        check_order(checked)
    except ValidationError as error:
        raise RecipeError(f"recover: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    except ValueError as error:
        raise RecipeError(f"recover: {error}") from error
    model, slim = unwrapped(model), unwrapped(slim)
    if wrong := wrong_shape(tensors(slim), plan, "slim"):
        raise RecipeError(f"recover: {wrong}")
    batches = [batch.beside(model) for batch in batches_of(data)]
    example = batches[0].inputs
    dense, working = Working.of(model, example), Working.of(slim, example)
    done = Recovered(working.result)
    for index, step in enumerate(checked):

        def at(share: float, index: int = index) -> None:
            progress((index + share) / len(checked))

        at(0.0)
        changed = 0
        try:
            if isinstance(step, MeansSpec):
                changed = len(fold_means(dense, working, plan, batches, from_batchnorm=step.source == "batchnorm"))
            elif isinstance(step, LeastSquaresSpec):
                per_channel = step.weights == "scales"
                options: dict[str, Any] = {"per_channel": per_channel, "ridge": step.ridge, "seed": seed}
                found = refit(dense, working, plan, batches, memory=memory, progress=at, **options)
                changed = sum(solution.ridge != float("inf") for solution in found.values())
            else:
                changed = len(reestimate(working, batches, memory=memory, progress=at))
        except Exception as error:
            if not allocation_failed(error):
                raise
            working.notes.append(
                f"{step.method} was broken off, as there is no memory left: give fewer images, in smaller batches (a "
                "list of tensors)"
            )
        done.layers.append(changed)
        if not changed:
            working.notes.append(f"{step.method} changed nothing: no layer of this network can take it")
    done.notes = list(dict.fromkeys(working.notes))
    _check(done.model, example)
    return done


def _check(model: nn.Module, example: Inputs) -> None:
    with evaluating(model):
        if not all(bool(x.isfinite().all()) for x in outputs(example.call(model))):
            raise RecipeError("recovery made outputs that are not finite: give more calibration images, or set ridge")
