"""What a recovery is: one way to win back what pruning costs, in a file of its own that declares what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..calibration import Batch, WritableNetwork
from ..errors import RecipeError
from ..messages import shown
from ..recipe.recovery import RECOVERIES, OwnRecoverySpec, RecoverySpec
from ..records import Plan
from ..tasks.task import Task
from ..user_code import Tell
from ..user_code_calls import callable_of, in_one_line


@dataclass
class Mending:
    """What a recovery works with.

    Attributes:
        dense: the dense network, which is not to be changed.
        slim: the network that is mended: `write` and `shift` change its tensors, and `notes` is for the user.
        plan: by which slim was cut.
        batches: the calibration images.
        seed: draws what is drawn.
        memory: bytes that may come on top of the networks, the images and a forward pass.
        progress: is called with the share that is done.
        task: what the outputs are for, where that is known.
    """

    dense: WritableNetwork
    slim: WritableNetwork
    plan: Plan
    batches: list[Batch]
    seed: int
    memory: float
    progress: Callable[[float], None] = lambda share: None
    task: Task | None = None


@dataclass(frozen=True)
class Recovery:
    """A registered recovery.

    Attributes:
        name: as recipes call it.
        description: one line for lists.
        spec: its keys in a recipe, whether it needs images, and whether it has to come first.
        mend: from a spec and a Mending, whose slim network it changes, to how many layers that changed.
    """

    name: str
    description: str
    spec: type[RecoverySpec]
    mend: Callable[[Any, Mending], int] = field(repr=False)


def mend_by(spec: RecoverySpec, mending: Mending, tell: Tell | None = None) -> int:
    """Mends a network by one recovery.

    Args:
        spec: of a registered recovery, or of a function of the user's own, which is called with `mending`.
        mending: what it works with, and what it changes.
        tell: gets a line that says which file of the user's is run.

    Returns:
        How many layers changed.

    Raises:
        RecipeError: the user's code can't be used.
    """
    if not isinstance(spec, OwnRecoverySpec):
        return RECOVERIES[spec.method].mend(spec, mending)
    mend = callable_of(spec.method, "recover", tell)
    with in_one_line(RecipeError, f"recover: {spec.method} failed"):
        layers = mend(mending, **spec.kwargs)
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 0:
        raise RecipeError(f"recover: {spec.method} returned {shown(layers)}: return how many layers it changed")
    return layers
