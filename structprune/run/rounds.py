"""The stages of a run whose cut goes in rounds: those of one round, repeated, with what leads from one to the next.

A round cuts the network `base`: at first the dense one, then what the round before has left, with a graph of its own.
`earlier` is the plan of all rounds before. What a round measures is called `rounds.NUMBER.…`, and its gate has its
number, so that none takes another's place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from ..data import Data
from ..graph import trace
from ..quality_judge import Quality
from ..recipe import Recipe
from ..records import Plan
from ..schedules.rounds import rounds_of
from ..user_code import Tell
from .stage import Stage, Work

_MEASURED = ("quality.", "recovery", "epochs.")


def with_rounds(stages: Sequence[Stage], recipe: Recipe, tell: Tell | None = None) -> list[Stage]:
    """The stages that a recipe has.

    Args:
        stages: All stages, in turn.
        recipe: The recipe, with a schedule or without.
        tell: Gets a line that says which file of the user's is run.

    Returns:
        Those of `stages` that the recipe has. Before them, for each round but the last, copies of those that a
        round repeats.

    Raises:
        RecipeError: The user's curve of a schedule can't be used.
    """
    places = [place for place, entry in enumerate(stages) if entry.repeats]
    last = [entry for entry in stages if entry.when(recipe)]
    if not places:
        return last
    rounds: list[Stage] = []
    for number, each in enumerate(rounds_of(recipe, tell)[:-1], 1):
        rounds += [_of_round(entry, each, number) for entry in stages if _repeats(entry, each)]
        rounds.append(_next_round(number))
    before = sum(entry.when(recipe) for entry in stages[: places[0]])
    return [*last[:before], *rounds, *last[before:]]


def _repeats(entry: Stage, recipe: Recipe) -> bool:
    """Whether a round before the last has a stage, by its own recipe."""
    return bool(entry.repeats) and (entry.between or entry.when)(recipe)


def _of_round(entry: Stage, recipe: Recipe, number: int) -> Stage:
    """A stage of a round before the last, for which its own recipe counts."""
    names = {name: _name(name, number) for name in (*entry.makes, *entry.first)}
    return dataclasses.replace(
        entry,
        name=f"{entry.name}.{number}",
        kind=entry.name,
        run=partial(_renamed, entry.run, names),
        read=None if entry.read is None else partial(_renamed, entry.read, names),
        needs=lambda _: entry.needs(recipe),
        spec=lambda _: entry.spec(recipe),
        makes=tuple(names[name] for name in entry.makes),
        first=tuple(names[name] for name in entry.first),
        title=f"round {number}: {entry.title}" if entry.title else "",
    )


def _name(artefact: str, number: int) -> str:
    """What an artefact is called that only says how a round went."""
    if artefact.startswith("gates."):
        return f"{artefact}.{number}"
    return f"rounds.{number}.{artefact.removeprefix('quality.')}" if artefact.startswith(_MEASURED) else artefact


def _renamed(function: Callable[..., Any], names: dict[str, str], *arguments: Any, **inputs: Any) -> Any:
    """What a stage's function gives, with its artefacts called by other names."""
    results = function(*arguments, **inputs)
    if not isinstance(results, dict) or not results.keys() <= names.keys():
        return results
    return {names[name]: value for name, value in results.items()}


def _next_round(number: int) -> Stage:
    measured = (f"rounds.{number}.pruned", f"rounds.{number}.final")
    return Stage(
        f"next.{number}",
        partial(_go_on, number),
        after=None,
        needs=lambda _: ("slim", "plan", "samples", "form", *measured),
        makes=("base", "graph", "earlier"),
        spec=lambda _: None,
        when=lambda _: True,
    )


def _go_on(
    number: int, work: Work, slim: nn.Module, plan: Plan, samples: Data, form: dict[str, Any], **measured: Quality
) -> dict[str, Any]:
    """What the next round cuts: the network that this one has left."""
    cut, trained = (measured[f"rounds_{number}_{name}"] for name in ("pruned", "final"))
    left = plan.macs["slim"] / plan.macs["dense"]
    work.reporter.stage(
        f"round {number}: {left:.1%} of the MACs are left, {cut.metric} {cut.value:.4f} as cut and {trained.value:.4f} "
        "at its end"
    )
    return {"base": slim, "graph": trace(slim, samples.one, form=form["form"]), "earlier": plan}
