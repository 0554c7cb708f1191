"""The messages about a recipe's mistakes: a line for each, with its place and what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from ..messages import shown, unknown
from ..schedules.finetuning import FinetuneSpec
from ..schedules.rounds import ScheduleSpec
from ..strict_specs import mistakes
from ..train.spec import TrainSpec
from .pruning import BudgetSpec, PruneSpec, ScanSpec, SearchSpec
from .specs import AlsoSpec, BenchSpec, ExportSpec, Recipe, RuntimeSpec

_EXTRA = "extra_forbidden"  # pydantic's word for a key that is not known
AT_MOST = 10  # lines of mistakes
_TYPES = ("int", "float", "str", "bool", "none", "constrained-int", "constrained-float", "constrained-str")


@dataclass(frozen=True)
class _Mistake:
    """One mistake. `value` is what the recipe has there, if the message does not show it; `types` says that it is about
    one of several types that are allowed at its place."""

    place: tuple[str, ...]
    kind: str
    message: str
    value: str = ""
    types: bool = False


def lines(error: ValidationError, where: str, whole: type[BaseModel] | None = None) -> list[str]:
    """Writes the mistakes of a recipe, or of another file.

    Args:
        error: The error that checking it raised.
        where: The file's name.
        whole: What checked it, if that is not a recipe.

    Returns:
        A line for each mistake, in the order of the file's keys; after ten of them, how many more there are.
    """
    entries = list(_merged(_without_echoes([_mistake(each, spec or whole) for each, spec in mistakes(error)])))
    texts = [f"{where}: {_text(each)}" for each in entries[:AT_MOST]]
    return texts if len(entries) <= AT_MOST else [*texts, f"{where}: and {len(entries) - AT_MOST} more mistakes"]


def plain(text: str) -> str:
    """A user's text for a message: as it is if it is short and on one line."""
    return text if len(text) <= 200 and text.isprintable() else shown(text, 200)


def _text(mistake: _Mistake) -> str:
    place = f"{plain('.'.join(mistake.place))}: " if mistake.place else ""
    message = mistake.message + (f", not {mistake.value}" if mistake.value else "")
    return f"{place}{' '.join(message.split())[:600]}"


def _mistake(problem: dict[str, Any], spec: type[BaseModel] | None) -> _Mistake:
    location, kind = problem["loc"], problem["type"]
    named = [str(part) for part in location]
    place = tuple(part for part in named if part not in _TYPES and "[" not in part) if kind != _EXTRA else tuple(named)
    message, value = problem["msg"].removeprefix("Value error, "), ""
    if kind == _EXTRA:
        message = unknown("key", place[-1], _own_keys(spec) if spec else _keys(named[:-1]))
    elif kind not in ("value_error", "missing"):
        value = shown(problem["input"])
    return _Mistake(place, kind, message, value, len(place) < len(named))


def _without_echoes(entries: list[_Mistake]) -> list[_Mistake]:
    """Leaves out missing keys that are misspelt, and allowed types that a value was not meant to have, as it is of
    another one except for what is inside it."""
    strange = [each.place for each in entries if each.kind == _EXTRA]

    def echoes(each: _Mistake) -> bool:
        if each.kind == "missing":
            beside = [place[-1] for place in strange if place[:-1] == each.place[:-1]]
            return bool(difflib.get_close_matches(each.place[-1], beside, 1, 0.7))
        deeper = (other.place for other in entries if len(other.place) > len(each.place))
        return each.types and any(place[: len(each.place)] == each.place for place in deeper)

    return [each for each in entries if not echoes(each)]


def _merged(entries: list[_Mistake]) -> Iterator[_Mistake]:
    """Merges the mistakes of all types that are allowed at one place."""
    of_place: dict[tuple[str, ...], list[_Mistake]] = {}
    for each in entries:
        if each.types:
            of_place.setdefault(each.place, []).append(each)
    for each in entries:
        if not each.types:
            yield each
        elif same := of_place.pop(each.place, None):
            messages = dict.fromkeys(other.message for other in same)
            yield _Mistake(each.place, each.kind, " or ".join(messages), each.value)


def _own_keys(spec: type[BaseModel]) -> list[str]:
    return [key for key, field in spec.model_fields.items() if not field.exclude]


def _keys(parents: list[str]) -> list[str]:
    """The known keys at a place in a recipe."""
    specs: dict[str, type[BaseModel]] = {
        "": Recipe,
        "train": TrainSpec,
        "finetune": FinetuneSpec,
        "prune": PruneSpec,
        "prune.budget": BudgetSpec,
        "prune.scan": ScanSpec,
        "prune.search": SearchSpec,
        "prune.schedule": ScheduleSpec,
        "runtime": RuntimeSpec,
        "export": ExportSpec,
        "bench": BenchSpec,
        "bench.also": AlsoSpec,
    }
    return list(specs[".".join(part for part in parents if not part.isdigit())].model_fields)
