"""The registry of criteria: what each is called, computes and needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from .views import COMBINE, Consumer, GroupView, Members

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
    def by_batch(self) -> bool:
        return bool(self.needs & {"activations", "gradients"})


CRITERIA: dict[str, Criterion] = {}


def criterion(
    name: str,
    description: str,
    *,
    source: str = "",
    needs: Sequence[str] = (),
    combine: str | None = None,
    sequential: bool = False,
    squares: bool = False,
    mend: Mend | None = None,
    finish: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[F], F]:
    """Registers a criterion (see `Criterion`) under a name that recipes can use; ValueError for a name that is taken,
    for a need that is none and for a way to combine that is none."""
    for need in needs:
        if need not in NEEDS:
            raise ValueError(f"criterion {name!r} needs {need!r}, which is none of {', '.join(NEEDS)}")
    if combine is not None and combine not in COMBINE:
        raise ValueError(f"criterion {name!r} combines by {combine!r}, which is none of {', '.join(COMBINE)}")

    def register(function: F) -> F:
        if name in CRITERIA:
            raise ValueError(f"a criterion named {name!r} is registered already")
        CRITERIA[name] = Criterion(
            name, function, description, source, frozenset(needs), combine, sequential, squares, mend, finish
        )
        return function

    return register
