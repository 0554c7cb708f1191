"""What an allocation is: a way to share a budget among the groups, which says what it needs.

It gets the choices, the scores and `load`: `load(widths)` is the largest share of any budget that these widths use (1.0
is exactly all), `load.shares(widths)` that of each. It returns the widths. It may assume that the narrowest widths fit.
Nothing else knows one by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RecipeError
from ..records import Scores
from ..registry import Registry
from ..user_code_calls import callable_of
from .budget import Choice, Cost, Widths

if TYPE_CHECKING:
    from ..user_code import Tell


@dataclass(frozen=True)
class Load:
    """What widths use of each budget.

    Attributes:
        shares: gives an array with one number a budget, 1.0 where it is all used.
        cost: what widths cost on the runtime; None where the plan was given no costs.
    """

    shares: Callable[[Widths], np.ndarray]
    cost: Cost | None = None

    def __call__(self, widths: Widths) -> float:
        return float(self.shares(widths).max())


Allocate = Callable[[list[Choice], Scores, Load], Widths]

NEEDS = {
    "scan": "what pruning each group alone loses, on samples or on random inputs (structprune.sensitivity)",
    "cost": "what widths cost on the runtime (structprune.cost.learn_cost)",
    "positive": "scores of at least 0",
}


@dataclass(frozen=True)
class Allocation:
    """A registered allocation.

    Attributes:
        name: as recipes call it.
        description: one line for lists.
        allocate: a function from choices, scores and load to widths.
        needs: of NEEDS, what it can't do without.
        uses: of NEEDS, what it takes in place of the scores where it is there.
        for_speed: whether it weighs what a width loses against what it saves, as a budget of speed asks for.
        quick: whether it is done in no time; else whether there is a plan at all is looked at by another one first.
    """

    name: str
    description: str
    allocate: Allocate = field(repr=False)
    needs: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()
    for_speed: bool = False
    quick: bool = True

    @property
    def scans(self) -> bool:
        """Whether a scan of sensitivity is made for it: of calibration images, or of random inputs without any."""
        return "scan" in self.needs | self.uses

    def refuses_negative(self, scores: Scores) -> bool:
        """Tells whether it can't be used with scores of which some are negative.

        Args:
            scores: the scores that it would share the budget by

        Returns:
            Whether it can't.
        """
        return "positive" in self.needs and not (scores.sensitivity is not None and self.scans)


ALLOCATIONS: Registry[Allocation] = Registry("allocation", "structprune.plan")


def allocation(
    name: str,
    description: str,
    *,
    needs: Sequence[str] = (),
    uses: Sequence[str] = (),
    for_speed: bool = False,
    quick: bool = True,
) -> Callable[[Allocate], Allocate]:
    """Registers an allocation under a name that recipes can use: `@allocation("mine", "what it does")` above it.

    Args:
        name: by which `plan` and recipes find it.
        description: a line for lists.
        needs: what it can't do without, of NEEDS.
        uses: what it takes in place of the scores where it is there, of NEEDS.
        for_speed: whether it weighs what a width loses against what it saves.
        quick: whether it is done in no time.

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        ValueError: the name is taken, or a need is not one of NEEDS.
    """
    if unfit := [need for need in (*needs, *uses) if need not in NEEDS]:
        raise ValueError(f"allocation {name!r} needs {unfit[0]!r}, which is not one of {', '.join(NEEDS)}")

    def register(allocate: Allocate) -> Allocate:
        ALLOCATIONS.add(Allocation(name, description, allocate, frozenset(needs), frozenset(uses), for_speed, quick))
        return allocate

    return register


def allocation_of(choice: str | Allocate | Allocation, tell: Tell | None = None) -> Allocation:
    """The allocation of a name, of code (`file.py:Name`), or of any function; one itself.

    Args:
        choice: what `plan` or a recipe names.
        tell: gets a line that says which file of the user's is run.

    Returns:
        The registered allocation, or one made for the function.

    Raises:
        RecipeError: no such allocation, or code that is not there or can't be called.
    """
    if isinstance(choice, Allocation):
        return choice
    if isinstance(choice, str) and ":" in choice:
        choice = callable_of(choice, "allocation", tell)
    if callable(choice):
        registered = [entry for entry in ALLOCATIONS.values() if entry.allocate is choice]
        name = getattr(choice, "__name__", type(choice).__name__)
        return registered[0] if registered else Allocation(name, "", choice)
    if not isinstance(choice, str) or choice not in ALLOCATIONS:
        raise RecipeError(ALLOCATIONS.complain(choice))
    return ALLOCATIONS[choice]
