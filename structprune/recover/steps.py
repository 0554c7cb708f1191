"""`recover`: the steps that win back what pruning costs, without labels and without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError
from torch import nn

from ..calibration import Batch, Working, batches_of
from ..errors import RecipeError
from ..memory import LIMIT, allocation_failed
from ..modules import evaluating, tensors
from ..ops import Inputs, outputs
from ..options import checked, function, instance, number, several, whole
from ..recipe import BatchNormSpec, LeastSquaresSpec, MeansSpec, RecoverSpec, check_order
from ..records import Plan
from ..surgery import wrong_shape
from ..typing import RecoveryStep
from ..wrappers import unwrapped
from .batchnorm import reestimate
from .least_squares import refit
from .means import fold_means

Step: TypeAlias = MeansSpec | LeastSquaresSpec | BatchNormSpec

_STEPS: TypeAdapter[list[Step]] = TypeAdapter(list[RecoverSpec])


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
    steps: Sequence[RecoveryStep] = ("means", "least_squares"),
    *,
    seed: int = 0,
    memory: float = LIMIT,
    progress: Callable[[float], None] = lambda share: None,
) -> Recovered:
    """A copy of `slim` whose weights, biases and BatchNorm statistics make up for the removed channels.

    Labels are not used. The methods, each by its name or as a mapping with options:

    - `means`, or {"method": "means", "source": "batchnorm"}: removed channels leave their mean in consumers' offsets;
    - `least_squares`, or {"method": "least_squares", "weights": "scales", "ridge": 0.1}: consumers' weights are fitted
      to the dense network's outputs, layer by layer;
    - `batchnorm`: running means and variances are taken anew.

    Args:
        model: the dense network that `slim` was cut from.
        slim: the network that is to be mended.
        plan: the plan that it was cut by.
        data: calibration data (see `calibration.batches_of`).
        steps: methods, in the order in which they are done.
        seed: draws the rows that are looked at.
        memory: bytes that may come on top of the networks, the images and a forward pass. Layers whose refit would take
            more are refitted in another way, or keep their weights; `notes` tells.
        progress: is called with the share that is done.

    Returns:
        The mended copy, how many layers each method changed, and notes.

    Raises:
        RecipeError: methods are unknown or in an order that can't work, or `slim` is not what the plan makes.
    """
    specs = _read(steps)
    model, slim = unwrapped(model), unwrapped(slim)
    if wrong := wrong_shape(tensors(slim), plan, "slim"):
        raise RecipeError(f"recover: {wrong}")
    batches = [batch.beside(model) for batch in batches_of(data)]
    example = batches[0].inputs
    mending = _Mending(Working.of(model, example), Working.of(slim, example), plan, batches, seed, memory)
    result = Recovered(mending.slim.result)
    for index, spec in enumerate(specs):

        def at(share: float, index: int = index) -> None:
            progress((index + share) / len(specs))

        result.layers.append(mending.by(spec, at))
    result.notes = list(dict.fromkeys(mending.slim.notes))
    _check(result.model, example)
    return result


def _read(steps: Sequence[Any]) -> list[Step]:
    """The specs of methods. Raises RecipeError for unknown ones and for an order that can't work."""
    try:
        specs = _STEPS.validate_python(list(steps))
        check_order(specs)
    except ValidationError as error:
        raise RecipeError(f"recover: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    except ValueError as error:
        raise RecipeError(f"recover: {error}") from error
    return specs


@dataclass
class _Mending:
    """What the methods have in common; `slim` is the network that they change."""

    dense: Working
    slim: Working
    plan: Plan
    batches: list[Batch]
    seed: int
    memory: float

    def by(self, spec: Step, progress: Callable[[float], None]) -> int:
        """Mends by one method. Returns how many layers that changed, and notes what a user should know."""
        progress(0.0)
        changed = 0
        try:
            changed = self._changed(spec, progress)
        except Exception as error:
            if not allocation_failed(error):
                raise
            self.slim.notes.append(
                f"{spec.method} was broken off, as there is no memory left: give fewer images, in smaller batches (a "
                "list of tensors)"
            )
        if not changed:
            self.slim.notes.append(f"{spec.method} changed nothing: no layer of this network can take it")
        return changed

    def _changed(self, spec: Step, progress: Callable[[float], None]) -> int:
        if isinstance(spec, MeansSpec):
            from_batchnorm = spec.source == "batchnorm"
            return len(fold_means(self.dense, self.slim, self.plan, self.batches, from_batchnorm=from_batchnorm))
        if isinstance(spec, LeastSquaresSpec):
            solutions = refit(
                self.dense,
                self.slim,
                self.plan,
                self.batches,
                per_channel=spec.weights == "scales",
                ridge=spec.ridge,
                seed=self.seed,
                memory=self.memory,
                progress=progress,
            )
            return sum(solution.ridge != float("inf") for solution in solutions.values())
        return len(reestimate(self.slim, self.batches, memory=self.memory, progress=progress))


def _check(model: nn.Module, example: Inputs) -> None:
    with evaluating(model):
        if not all(bool(x.isfinite().all()) for x in outputs(example.call(model))):
            raise RecipeError("recovery made outputs that are not finite: give more calibration images, or set ridge")
