"""The registry of criteria: what each is called, computes and needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from ..errors import RecipeError
from ..registry import Registry
from ..typing import Combination, Need
from ..user_code_calls import callable_of
from .views import COMBINE, Consumer, GroupView, Members

if TYPE_CHECKING:
    from ..user_code import Tell

Scored = Tensor | Members
CriterionFunction = Callable[[GroupView], Scored]
F = TypeVar("F", bound=CriterionFunction)
Mend = Callable[[GroupView, Consumer, Tensor], tuple[Tensor, Tensor]]

NEEDS = {
    "bn": "BatchNorm on the channels",
    "activations": "calibration images",
    "moments": "calibration images",
    "expected": "BatchNorms before the layers that consume the channels",
    "gradients": "calibration images and a task with a loss (by default class scores; labels are used if there)",
    "samples": "calibration images and layers that consume the channels",
    "widths": "the widths of a plan",
}


class Unscored(Exception):
    """A criterion can't score this group; the message says why. The group stays whole."""


DATA = frozenset(["activations", "moments", "gradients", "samples"])


@dataclass(frozen=True)
class Criterion:
    """A registered criterion: a function from a group to one score a unit, low scores going first.

    It may return a list instead, one tensor for each coupled layer, NaN for units that a layer does not have: these
    are put together as `combine` says. `needs` are of `NEEDS`. With activations or gradients the function is called
    for each batch, and its scores are averaged over the images, then go through `finish`. A `sequential` one ranks
    each group on the network without what it removed of the groups before, whose consumers' weights `mend` may mend: it
    gets (group, consumer, which units stay) and returns a weight and an offset of the outputs. One that `squares` makes
    matrices of (inputs, inputs) of a consumer: consumers of very many inputs are shown to it in parts.
    """

    name: str
    function: CriterionFunction
    description: str
    source: str = ""
    needs: frozenset[str] = frozenset()
    combine: str | None = None
    sequential: bool = False
    squares: bool = False
    mend: Mend | None = field(default=None, repr=False)
    finish: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    @property
    def needs_data(self) -> bool:
        return bool(self.needs & DATA)

    @property
    def ranks_consumed(self) -> bool:
        """Whether it can choose a group's units for a width from what the next layers read, and needs no more."""
        return self.needs == {"samples", "widths"}

    @property
    def by_batch(self) -> bool:
        return bool(self.needs & {"activations", "gradients"})


CRITERIA: Registry[Criterion] = Registry("criterion", "structprune.criteria")


def criterion(
    name: str,
    description: str,
    *,
    source: str = "",
    needs: Sequence[Need] = (),
    combine: Combination | None = None,
    sequential: bool = False,
    squares: bool = False,
    mend: Mend | None = None,
    finish: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[F], F]:
    """Registers a criterion under a name that recipes can use: `@criterion("mine", "what it is")` above its function.

    Args:
        name: by which `score` and recipes find it.
        description: a line for lists.
        source: the paper that it is from.
        needs: what it is to find on a group, of `NEEDS`; without any, weights alone.
        combine: how the scores of coupled layers are put together, where a recipe does not say.
        sequential: whether groups are scored in turn, each on the network without what went of those before.
        squares: whether it makes matrices of (inputs, inputs) of a consumer: large consumers are shown to it in parts.
        mend: of a sequential criterion what a consumer's weight and the offset of its outputs become, given the group,
            the consumer and which units stay.
        finish: what the scores go through after they are averaged over the images.

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        ValueError: the name is taken, or a need or a way to combine is none.

    Example:
        >>> @sp.criterion("largest", "the largest weight of a filter")
        ... def largest(group):
        ...     return group.per_unit(group.weights[0], group.weights[0].positions().abs().amax(1))
        >>> sp.score(graph, "largest").criterion
        'largest'
    """
    for need in needs:
        if need not in NEEDS:
            raise ValueError(f"criterion {name!r} needs {need!r}, which is none of {', '.join(NEEDS)}")
    if combine is not None and combine not in COMBINE:
        raise ValueError(f"criterion {name!r} combines by {combine!r}, which is none of {', '.join(COMBINE)}")

    def register(function: F) -> F:
        CRITERIA.add(
            Criterion(name, function, description, source, frozenset(needs), combine, sequential, squares, mend, finish)
        )
        return function

    return register


def criterion_of(criterion: str | CriterionFunction, tell: Tell | None = None) -> Criterion:
    """The criterion of a name, of code (`file.py:Name`), or of any function.

    Args:
        criterion: what `score` or a recipe names.
        tell: gets a line that says which file of the user's is run.

    Returns:
        What is registered; a function that is not needs weights alone, and goes by its own name.

    Raises:
        RecipeError: no such criterion, or code that is not there or can't be called.
    """
    if isinstance(criterion, str) and ":" in criterion:
        criterion = callable_of(criterion, "criterion", tell)
    if callable(criterion):
        registered = [entry for entry in CRITERIA.values() if entry.function is criterion]
        name = getattr(criterion, "__name__", type(criterion).__name__)
        return registered[0] if registered else Criterion(name, criterion, "", combine="leading")
    if not isinstance(criterion, str) or criterion not in CRITERIA:
        raise RecipeError(CRITERIA.complain(criterion))
    return CRITERIA[criterion]
