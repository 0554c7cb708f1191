"""Runs stages: their order, what is made anew and what is found in the store, progress and events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from ..criteria import CRITERIA
from ..data import SOURCES
from ..export import FORMATS
from ..models.registry import MODEL_SOURCES
from ..ops.record import OPS
from ..plan import ALLOCATIONS
from ..progress import Reporter
from ..recipe import RECOVERIES, Recipe
from ..runtimes import ENGINES
from ..store.artefacts import Artefact, Artefacts, Key, code_digest, digest_of
from ..tasks import TASKS
from ..train.method import TRAINING_METHODS
from ..user_code import registered_code
from .rounds import with_rounds
from .stage import STAGES, Stage, Work, ordered

_VERSIONS = ("timm", "accelerate", "numpy", "scipy", "safetensors", "onnx", "onnxruntime", "openvino")


class Runner:
    """The stages of one recipe over a store.

    `given` holds artefacts that are taken as they are, in place of what stages would make.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: Artefacts,
        reporter: Reporter,
        artefacts: Mapping[str, Any] | None = None,
        stages: Iterable[Stage] | None = None,
    ) -> None:
        self.recipe, self.store, self.reporter = recipe, store, reporter
        self.stages = with_rounds([*(stages or ordered(STAGES))], recipe, reporter.stage)
        self._versions = versions(self.stages)
        self._given = dict(artefacts or {})
        self._values: dict[tuple[str, str], Any] = {}
        self._digests: dict[tuple[str, str], str] = {}
        self._kept: dict[str, Artefact] = {}
        self._left_out: set[str] = set()

    def settle(self, *names: str) -> None:
        """Makes what `names` hang on, as far as it is kept and not there yet."""
        for entry in self._required(names, len(self.stages)):
            self._settle(entry)

    def value(self, name: str, before: str | None = None) -> Any:
        """The artefact of this name as the last stage that makes it leaves it, or the last one before a stage."""
        place = [entry.name for entry in self.stages].index(before) if before else len(self.stages)
        for entry in self._required([name], place):
            self._settle(entry)
        return self._value(name, place)

    def folder(self, name: str) -> Path | None:
        """The folder in the store of the artefact that is kept under this name; None where none is."""
        maker = self._maker(name, len(self.stages))
        return self._kept[maker.name].folder if maker is not None and maker.name in self._kept else None

    def folder_of(self, stage: str) -> Path | None:
        """The folder in the store of what this stage makes, once it is settled; None where nothing is kept."""
        return self._kept[stage].folder if stage in self._kept else None

    def key(self, stage: str) -> Key:
        """The key under which the store has what this stage makes, once what the stage needs is settled."""
        return self._key(next(entry for entry in self.stages if entry.name == stage))

    def gates(self) -> list[str]:
        """The names of all gates, in turn."""
        names = (name for entry in self.stages for name in entry.makes if name.startswith("gates."))
        return list(dict.fromkeys(name.removeprefix("gates.") for name in names))

    def reasons(self, gate: str) -> list[str]:
        """Why this gate did not pass; none where it did, and where the recipe has no such gate."""
        name = f"gates.{gate}"
        return self.value(name).reasons() if self._maker(name, len(self.stages)) is not None else []

    def beside(self, recipe: Recipe, artefacts: Mapping[str, Any] | None = None) -> Runner:
        """The runner of another recipe over the same store, which takes over what is the same there."""
        other = Runner(recipe, self.store, self.reporter, {**self._given, **(artefacts or {})})
        same: set[str] = set()
        for place, entry in enumerate(other.stages):
            if entry not in self.stages or (entry.name, entry.makes[0]) not in self._digests:
                continue
            makers = other._makers(entry, place)
            if (
                makers == self._makers(entry, self.stages.index(entry))
                and _decides(entry, recipe) == _decides(entry, self.recipe)
                and all(maker is None or maker.name in same for maker in makers.values())
                and not makers.keys() & set(artefacts or {})
            ):
                same.add(entry.name)
        for mine, theirs in ((self._digests, other._digests), (self._values, other._values)):
            theirs.update({key: value for key, value in mine.items() if key[0] in same})
        other._kept.update({name: artefact for name, artefact in self._kept.items() if name in same})
        return other

    # --- which stages --------------------------------------------------------------------------------------

    def _maker(self, name: str, before: int) -> Stage | None:
        for entry in reversed(self.stages[:before]):
            if name in entry.makes and entry.name not in self._left_out:
                return entry
        return None

    def _settled_maker(self, name: str, before: int) -> Stage | None:
        """The stage whose artefact `name` is: where one is left out, an earlier one that makes it too."""
        while (maker := self._maker(name, before)) is not None:
            self._settle(maker)
            if maker.name not in self._left_out:
                return maker
        return None

    def _makers(self, entry: Stage, before: int) -> dict[str, Stage | None]:
        """The stages that make what a stage needs, by the artefacts' names."""
        names = (name for need in entry.needs(self.recipe) for name in self._names(need, before))
        return {name: self._maker(name, before) for name in names}

    def _names(self, need: str, before: int) -> list[str]:
        """The names of the artefacts that a need may mean."""
        if not need.endswith(".*"):
            return [need.rstrip("?")]
        names = (name for entry in self.stages[:before] for name in entry.makes if name.startswith(need[:-1]))
        return list(dict.fromkeys(names))

    def _required(self, names: Iterable[str], before: int) -> list[Stage]:
        """The stages that make these artefacts, and those that these need, of the stages before a place."""
        required: set[str] = set()
        waiting = [(name, before) for name in names]
        while waiting:
            name, before = waiting.pop()
            entry = None if name in self._given else self._maker(name, before)
            if entry is None or entry.name in required:
                continue
            required.add(entry.name)
            place = self.stages.index(entry)
            needs = (*entry.needs(self.recipe), *entry.first)
            waiting += [(each, place) for need in needs for each in self._names(need, place)]
        return [entry for entry in self.stages if entry.name in required]

    # --- settling ------------------------------------------------------------------------------------------

    def _settle(self, entry: Stage) -> None:
        """Finds the digests of what a stage makes; a kept one's artefact is made if it is not in the store."""
        if (entry.name, entry.makes[0]) in self._digests or entry.name in self._left_out:
            return
        key = self._key(entry)
        artefact = None if entry.read is None else self.store.find(key)
        if artefact is None and entry.sound_only and not self._is_sound(entry):
            self._left_out.add(entry.name)
            return
        if entry.read is None:
            artefacts = self._run(entry) if entry.content else {}
            for name in entry.makes:
                known = key.digest if entry.content is None else entry.content(artefacts[name], entry.spec(self.recipe))
                self._digests[entry.name, name] = digest_of([known, name])
            return
        if artefact is None:
            artefact = self._make(entry, key)
        else:
            if entry.title:
                self.reporter.stage(f"{entry.title}: found, made before")
            self.reporter.event("found", stage=entry.name, artefact=artefact.folder.name)
        self._kept[entry.name] = artefact
        for name in entry.makes:
            self._digests[entry.name, name] = digest_of([artefact.digest, name])

    def _is_sound(self, entry: Stage) -> bool:
        place = self.stages.index(entry)
        gates = (name for name in self._names("gates.*", place) if self._is_there(name, place))
        return all(self._value(name, place).passed for name in gates)

    def _is_there(self, name: str, before: int) -> bool:
        return name in self._given or self._settled_maker(name, before) is not None

    def _key(self, entry: Stage) -> Key:
        place, inputs = self.stages.index(entry), {}
        for need in entry.needs(self.recipe):
            for name in self._names(need, place):
                if name in self._given:
                    inputs[name] = digest_of(repr(self._given[name]))
                elif (maker := self._settled_maker(name, place)) is not None:
                    inputs[name] = self._digests[maker.name, name]
        return Key(entry.kind or entry.name, _decides(entry, self.recipe), inputs, self._versions)

    def _make(self, entry: Stage, key: Key) -> Artefact:
        inputs, start = self._inputs(entry, entry.needs(self.recipe)), time.perf_counter()

        def write(folder: Path) -> None:
            entry.run(self._work(entry, folder), **inputs)

        def waiting() -> None:
            self.reporter.stage(f"waiting for another run that is at work on the same {entry.name}")

        artefact = self.store.make(key, write, waiting)
        self.reporter.event(
            "made", stage=entry.name, artefact=artefact.folder.name, seconds=round(time.perf_counter() - start, 3)
        )
        return artefact

    # --- values --------------------------------------------------------------------------------------------

    def _value(self, name: str, before: int) -> Any:
        """Raises KeyError where nothing makes it."""
        if name in self._given:
            return self._given[name]
        maker = self._settled_maker(name, before)
        if maker is None:
            raise KeyError(f"no stage of this recipe makes {name}")
        if (maker.name, name) not in self._values:
            self._run(maker)
        return self._values[maker.name, name]

    def _run(self, entry: Stage) -> dict[str, Any]:
        """The artefacts of a stage, by name: of a live one made, of a kept one read."""
        if entry.read is None:
            results = entry.run(self._work(entry, self.store.root), **self._inputs(entry, entry.needs(self.recipe)))
        else:
            work = self._work(entry, self._kept[entry.name].folder)
            results = entry.read(work, **self._inputs(entry, entry.reads))
        artefacts = results if len(entry.makes) > 1 else {entry.makes[0]: results}
        for name in entry.makes:
            self._values[entry.name, name] = artefacts[name]
        return artefacts

    def _inputs(self, entry: Stage, needs: tuple[str, ...]) -> dict[str, Any]:
        place = self.stages.index(entry)
        inputs: dict[str, Any] = {}
        for name in entry.first:
            self._value(name, place)
        for need in needs:
            if need.endswith(".*"):
                names = [name for name in self._names(need, place) if self._is_there(name, place)]
                inputs[need[:-2]] = {name.removeprefix(need[:-1]): self._value(name, place) for name in names}
                continue
            name = need.rstrip("?")
            is_left_out = need.endswith("?") and not self._is_there(name, place)
            inputs[name.replace(".", "_")] = None if is_left_out else self._value(name, place)
        return inputs

    def _work(self, entry: Stage, folder: Path) -> Work:
        recipe = self.recipe
        return Work(entry.spec(recipe), recipe.seed, int(recipe.memory * 2**30), self.reporter, folder, entry.name)


def _decides(entry: Stage, recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides what a stage makes."""
    return {"seed": recipe.seed, "memory": recipe.memory, "spec": _plain(entry.spec(recipe))}


def _plain(spec: Any) -> Any:
    if isinstance(spec, BaseModel):
        return spec.model_dump(mode="json")
    if isinstance(spec, Mapping):
        return {key: _plain(value) for key, value in spec.items()}
    return [_plain(value) for value in spec] if isinstance(spec, (list, tuple)) else spec


def versions(stages: Iterable[Stage]) -> dict[str, str]:
    """What decides, beside the recipe, what stages make."""
    own = registered_code([*stages, *_registered()])
    return {"structprune": code_digest(), "registered": own, "torch": str(torch.__version__), **_packages()}


def _registered() -> Iterator[Any]:
    """All that a user can register beside stages and that a recipe can hang on without naming its code."""
    recipes = (CRITERIA, ALLOCATIONS, MODEL_SOURCES, SOURCES, TASKS, ENGINES, RECOVERIES, TRAINING_METHODS, FORMATS)
    for registry in (OPS, *recipes):
        yield from registry.values()


@cache
def _packages() -> dict[str, str]:
    packages = {}
    for name in _VERSIONS:
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return packages
