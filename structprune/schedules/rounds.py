"""`prune.schedule` in a recipe: a cut in several rounds, each of which is a recipe with one cut.

A round plans, cuts, recovers and trains the network that the round before has left, to a budget that is a share of the
dense network; `run.rounds` repeats the stages, and `Plan.then` makes one plan of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Real
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from ..errors import RecipeError
from ..messages import shown, unknown
from ..strict_specs import Strict, Whole
from ..user_code_calls import callable_of, checked_name, in_one_line

if TYPE_CHECKING:
    from ..plan import Allocation
    from ..recipe import Recipe
    from ..train.spec import TrainSpec
    from ..user_code import Tell

SHARES = ("macs", "params", "channels")  # what a round's budget can be of, beside a speedup
SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda time: time,
    "cubic": lambda time: 1 - (1 - time) ** 3,
    "groups": lambda time: 1.0,
}


class ScheduleSpec(Strict):
    """A cut in rounds, with fine-tuning between them: what is left after each follows a line, or the cubic curve that
    cuts most while much is left (Zhu & Gupta 2017, eq. 1), or each cuts some groups of channels as far as they go at
    once (Li et al. 2017; ThiNet, Luo et al. 2017). The last round ends with all of `finetune`.

    A curve of one's own is a function from the part of the rounds that are done, over 0 and below 1, to the part of all
    that is to go which may have gone by then.
    """

    rounds: Whole = Field(ge=1, description="how often the network is cut; 1: at once")
    shape: str = Field(
        default="cubic",
        description="what goes when: equal amounts (`linear`), more at first (`cubic`), as many `groups` of channels "
        "in each round, in the order of the network, or by a function of your own, `file.py:Name`",
    )
    epochs: Whole = Field(
        default=1, ge=0, description="how long `finetune` trains after each round but the last; 0: not at all"
    )
    optimizer: Literal["continues", "new"] = Field(
        default="continues",
        description="whether the optimiser's state is cut with its weights and goes on in the next round, or is new",
    )

    @field_validator("shape")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if ":" in name:
            return checked_name(name, info)
        if name not in SHAPES:
            raise ValueError(unknown("shape", name, SHAPES))
        return name


def shares_gone(schedule: ScheduleSpec, tell: Tell | None = None) -> list[float]:
    """What part of all that is to go may have gone after each round.

    Args:
        schedule: How many rounds there are, and their curve.
        tell: Gets a line that says which file of the user's is run.

    Returns:
        A share in (0, 1] for each round, never less than that before; the last is 1.

    Raises:
        RecipeError: The user's curve can't be used.
    """
    key, source = "prune.schedule.shape", schedule.shape
    times = [number / schedule.rounds for number in range(1, schedule.rounds)]
    if source in SHAPES:
        return [*map(SHAPES[source], times), 1.0]
    curve = callable_of(source, key, tell)
    with in_one_line(RecipeError, f"{key}: {source} failed"):
        values = [curve(time) for time in times]
    numbers = [float(value) for value in values if isinstance(value, Real) and not isinstance(value, bool)]
    shares = [number for number in numbers if 0 < number <= 1]
    if len(shares) < len(values) or shares != sorted(shares):
        listed = ", ".join(f"{shown(value)} at {time:.3g}" for time, value in zip(times, values, strict=True))
        raise RecipeError(f"{key}: {source} gave {listed}: give numbers over 0, up to 1, that do not fall")
    return [*shares, 1.0]


def _left(name: str, amount: float, gone: float) -> float:
    """A budget once a part of all that is to go may have gone: a share, or a speedup, which is one over a share."""
    if gone == 1:
        return amount
    return 1 / _left("", 1 / amount, gone) if name == "speedup" else 1 - (1 - amount) * gone


def rounds_of(recipe: Recipe, tell: Tell | None = None) -> list[Recipe]:
    """The recipes of the rounds, in turn, whose budgets are shares of the dense network; the last is `recipe` itself.

    Args:
        recipe: One with a schedule, or without, which has one round.
        tell: Gets a line that says which file of the user's is run.

    Returns:
        A recipe for each round: its budget, and how long its network is trained.

    Raises:
        RecipeError: The user's curve can't be used.
    """
    schedule = recipe.prune.schedule
    if schedule is None:
        return [recipe]
    rounds = []
    for gone in shares_gone(schedule, tell)[:-1]:
        budget = {name: _left(name, amount, gone) for name, amount in recipe.prune.budget.costs.items()}
        prune = recipe.prune.model_copy(update={"budget": recipe.prune.budget.model_copy(update=budget)})
        finetune = None
        if recipe.finetune is not None and schedule.epochs:
            start = "slim" if recipe.finetune.start == "scratch" else recipe.finetune.start
            finetune = recipe.finetune.model_copy(update={"epochs": schedule.epochs, "start": start})
        rounds.append(recipe.model_copy(update={"prune": prune, "finetune": finetune}))
    return [*rounds, recipe]


def schedule_flaws(recipe: Recipe, allocation: Allocation) -> Iterator[str]:
    """What does not go with a cut in rounds: a message for each."""
    schedule, budget = recipe.prune.schedule, recipe.prune.budget
    if schedule is None or schedule.rounds == 1:
        return
    if recipe.prune.surgery == "merge":
        yield (
            "prune.surgery=merge merges once, as a mean of means is not that of all channels: set "
            "prune.schedule.rounds to 1, or surgery to drop"
        )
    others = [*(name for name in budget.costs if name not in (*SHARES, "speedup")), *budget.bounds]
    absolute = [f"{name} {amount:g}" for name, amount in budget.costs.items() if name in SHARES and amount > 1]
    if others or absolute:
        yield (
            f"prune.schedule goes to shares of the dense network ({', '.join(SHARES)} up to 1, or a speedup), and the "
            f"budget has {', '.join([*others, *absolute])}: give one of these, or cut at once"
        )
    if schedule.shape == "groups" and ("speedup" in budget.costs or "cost" in allocation.needs):
        what = "speedup" if "speedup" in budget.costs else f"allocation {allocation.name}"
        yield (
            f"prune.schedule.shape=groups goes to the widths of one plan, which it can't correct by what {what} needs "
            "to be measured: choose linear or cubic"
        )
    if not schedule.epochs:
        return
    if recipe.finetune is None:
        yield "prune.schedule.epochs is of fine-tuning, and there is none: add finetune, or set epochs to 0"
    elif carries_state(recipe) and (state := _uncuttable(recipe.finetune)):
        yield (
            f"opt={recipe.finetune.opt} keeps {state}, which can't be cut with them: set prune.schedule.optimizer to "
            "new, or choose another"
        )
    elif recipe.finetune.warmup_epochs >= schedule.epochs:
        yield (
            f"finetune.warmup_epochs={recipe.finetune.warmup_epochs} leaves nothing of "
            f"prune.schedule.epochs={schedule.epochs}"
        )
    elif recipe.finetune.chooses and recipe.finetune.interval > schedule.epochs:
        yield (
            f"finetune.val_interval={recipe.finetune.interval} never comes in prune.schedule.epochs={schedule.epochs}"
        )


def trains_between(recipe: Recipe) -> bool:
    """Whether a round's network is trained before the next one cuts it; of a recipe of any of the rounds."""
    schedule = recipe.prune.schedule
    return schedule is not None and recipe.finetune is not None and schedule.epochs > 0


def carries_state(recipe: Recipe) -> bool:
    """Whether a round's training goes on with the optimiser's state of the round before."""
    schedule, finetune = recipe.prune.schedule, recipe.finetune
    return schedule is not None and schedule.optimizer == "continues" and finetune is not None and not finetune.restarts


def _uncuttable(spec: TrainSpec) -> str | None:
    from .optimizer_state import uncuttable  # which needs torch

    return uncuttable(spec)
