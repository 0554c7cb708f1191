"""A stage of a run: what it needs, what it makes, and the part of the recipe that decides what comes of it.

Stages meet in named artefacts (`model`, `data`, `plan`, `slim`, `gates.final`, ...) and know nothing of each other. One
that makes what an earlier one has made takes its place for those that follow: `recover` needs a `slim` and makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..messages import unknown
from ..progress import Reporter
from ..recipe import Recipe


@dataclass(frozen=True)
class Work:
    """What a stage works with beside its inputs; what a kept stage writes into `folder` is its artefact. `stage` is its
    name."""

    spec: Any
    seed: int
    memory: int
    reporter: Reporter
    folder: Path
    stage: str = ""

    def say_notes(self, notes: Any) -> None:
        for note in notes:
            self.reporter.note(note)


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: in lower case, as in the log and the store.
        run: makes the artefacts from `work` and the inputs, which come by their names ("." is "_" there): the artefact,
            or one a name in `makes` where there are several. A kept stage writes files into `work.folder` instead.
        after: the stage that it follows; None for the first.
        needs: the names of its inputs. "gates.*" is a dict of all gates so far; "int8?" is None where nothing makes it.
        makes: the names of its artefacts.
        first: the names of what is made before it runs, though what it makes does not hang on it.
        spec: its part of the recipe, as plain data.
        when: whether a recipe has it.
        read: for a stage whose artefact is kept in the store: makes the artefacts from the files in `work.folder` and
            the inputs that `reads` names. It is called after `run` too, so that a resumed run goes on with the same.
        content: the digest of a live artefact by what it holds, and by the spec as far as that does not show it; by
            default it is told from what it is made of.
        sound_only: whether it is left out once a gate has failed.
        title: what it is about, for a line that says that its artefact was found.
        repeats: whether each round of a schedule has it; by default as the stage that it follows.
        between: whether a round before the last has it, by that round's recipe; by default as `when` has it.
        kind: the name under which the store keeps its artefact, where it is a copy of another stage.
    """

    name: str
    run: Callable[..., Any]
    after: str | None
    needs: Callable[[Recipe], tuple[str, ...]]
    makes: tuple[str, ...]
    spec: Callable[[Recipe], Any]
    when: Callable[[Recipe], bool]
    first: tuple[str, ...] = ()
    read: Callable[..., Any] | None = None
    reads: tuple[str, ...] = ()
    content: Callable[[Any, Any], str] | None = None
    sound_only: bool = False
    title: str = ""
    repeats: bool | None = None
    between: Callable[[Recipe], bool] | None = None
    kind: str = ""


STAGES: dict[str, Stage] = {}


def stage(
    name: str,
    *,
    after: str | None,
    needs: tuple[str, ...] | Callable[[Recipe], tuple[str, ...]] = (),
    makes: tuple[str, ...],
    spec: Callable[[Recipe], Any] = lambda recipe: None,
    when: Callable[[Recipe], bool] = lambda recipe: True,
    first: tuple[str, ...] = (),
    read: Callable[..., Any] | None = None,
    reads: tuple[str, ...] = (),
    content: Callable[[Any, Any], str] | None = None,
    sound_only: bool = False,
    title: str = "",
    repeats: bool | None = None,
    between: Callable[[Recipe], bool] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as a stage; see `Stage`. Raises RecipeError for a name that is taken."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if name in STAGES:
            raise RecipeError(f"stage {name} is there already: give another name")
        needed = needs if callable(needs) else lambda recipe: needs
        more = (first, read, reads, content, sound_only, title, repeats, between)
        STAGES[name] = Stage(name, function, after, needed, makes, spec, when, *more)
        return function

    return register


def ordered(stages: Mapping[str, Stage]) -> list[Stage]:
    """The stages in turn: each behind the one that it names; of several that name the same one, the last comes first.

    Each says whether a round repeats it.

    Raises RecipeError for a stage that follows one that is not there.
    """
    followers: dict[str | None, list[Stage]] = {}
    for entry in stages.values():
        if entry.after is not None and entry.after not in stages:
            raise RecipeError(f"stage {entry.name} follows {unknown('stage', entry.after, stages)}")
        followers.setdefault(entry.after, []).append(entry)
    line: list[Stage] = []

    def place(entry: Stage, repeats: bool) -> None:
        repeats = repeats if entry.repeats is None else entry.repeats
        line.append(replace(entry, repeats=repeats))
        for follower in reversed(followers.get(entry.name, [])):
            place(follower, repeats)

    for first in followers.get(None, []):
        place(first, False)
    return line
