"""Runs stages: their order, what is made anew and what is found in the store, progress and events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from ..progress import Reporter
from ..recipe import Recipe
from ..store.artefacts import Artefact, Artefacts, Key, code_digest, digest_of
from .stage import STAGES, Stage, Work, ordered

_VERSIONS = ("timm", "onnx", "onnxruntime", "scipy", "safetensors")


class Runner:
    """The stages of one recipe over a store.

    `given` holds artefacts that are taken as they are, in place of what stages would make.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: Artefacts,
        reporter: Reporter,
        given: Mapping[str, Any] | None = None,
        stages: Iterable[Stage] | None = None,
    ) -> None:
        self.recipe, self.store, self.reporter = recipe, store, reporter
        self._line = [entry for entry in (stages or ordered(STAGES)) if entry.when(recipe)]
        self._given = dict(given or {})
        self._values: dict[tuple[str, str], Any] = {}
        self._digests: dict[tuple[str, str], str] = {}
        self._kept: dict[str, Artefact] = {}
        self._left_out: set[str] = set()

    def settle(self, *names: str) -> None:
        """Makes what `names` hang on, as far as it is kept and not there yet."""
        for entry in self._required(names):
            self._settle(entry)

    def value(self, name: str) -> Any:
        """The artefact of this name as the last stage that makes it leaves it."""
        self.settle(name)
        return self._value(name, len(self._line))

    def folder(self, name: str) -> Path | None:
        """The folder in the store of the artefact that is kept under this name; None where none is."""
        maker = self._maker(name, len(self._line))
        return self._kept[maker.name].folder if maker is not None and maker.name in self._kept else None

    # --- which stages --------------------------------------------------------------------------------------

    def _maker(self, name: str, before: int) -> Stage | None:
        for entry in reversed(self._line[:before]):
            if name in entry.makes and entry.name not in self._left_out:
                return entry
        return None

    def _makers(self, need: str, before: int) -> dict[str, Stage]:
        """The stages that make what a need names, by the artefact's name."""
        if not need.endswith(".*"):
            maker = self._maker(need.rstrip("?"), before)
            return {} if maker is None else {need.rstrip("?"): maker}
        names = [n for entry in self._line[:before] for n in entry.makes if n.startswith(need[:-1])]
        makers = {name: self._maker(name, before) for name in dict.fromkeys(names)}
        return {name: maker for name, maker in makers.items() if maker is not None}

    def _required(self, names: Iterable[str]) -> list[Stage]:
        wanted: set[str] = set()
        waiting = [maker for name in names for maker in self._makers(name, len(self._line)).values()]
        while waiting:
            entry = waiting.pop()
            if entry.name in wanted:
                continue
            wanted.add(entry.name)
            for need in (*entry.needs(self.recipe), *entry.first):
                if need.rstrip("?") not in self._given:
                    waiting += self._makers(need, self._line.index(entry)).values()
        return [entry for entry in self._line if entry.name in wanted]

    # --- settling ------------------------------------------------------------------------------------------

    def _settle(self, entry: Stage) -> None:
        """Finds the digests of what a stage makes; a kept one's artefact is made if it is not in the store."""
        if (entry.name, entry.makes[0]) in self._digests or entry.name in self._left_out:
            return
        key = self._key(entry)
        if entry.read is None:
            for name in entry.makes:
                self._digests[entry.name, name] = (
                    entry.content(self._run(entry)[name]) if entry.content else digest_of([key.digest, name])
                )
            return
        made = self.store.find(key)
        if made is None and entry.sound_only and not self._is_sound(entry):
            self._left_out.add(entry.name)
            return
        if made is None:
            made = self._make(entry, key)
        elif entry.title:
            self.reporter.stage(f"{entry.title}: found, made before", stage=entry.name, artefact=made.folder.name)
        self._kept[entry.name] = made
        for name in entry.makes:
            self._digests[entry.name, name] = digest_of([made.digest, name])

    def _is_sound(self, entry: Stage) -> bool:
        gates = self._makers("gates.*", self._line.index(entry))
        return all(self._value(name, self._line.index(entry)).passed for name in gates)

    def _key(self, entry: Stage) -> Key:
        place, inputs = self._line.index(entry), {}
        for need in entry.needs(self.recipe):
            if need.rstrip("?") in self._given:
                inputs[need] = digest_of(repr(self._given[need.rstrip("?")]))
            for name, maker in self._makers(need, place).items():
                if name not in self._given:
                    self._settle(maker)
                    if maker.name not in self._left_out:
                        inputs[name] = self._digests[maker.name, name]
        return Key(entry.name, {**_always(self.recipe), "spec": _plain(entry.spec(self.recipe))}, inputs, versions())

    def _make(self, entry: Stage, key: Key) -> Artefact:
        inputs, start = self._inputs(entry, entry.needs(self.recipe)), time.perf_counter()

        def write(folder: Path) -> None:
            entry.run(self._work(entry, folder), **inputs)

        def waiting() -> None:
            self.reporter.stage(f"waiting for another run that is at work on the same {entry.name}")

        made = self.store.make(key, write, waiting)
        self.reporter.event(
            "made", stage=entry.name, artefact=made.folder.name, seconds=round(time.perf_counter() - start, 3)
        )
        return made

    # --- values --------------------------------------------------------------------------------------------

    def _value(self, name: str, before: int) -> Any:
        """Raises KeyError where nothing makes it."""
        if name in self._given:
            return self._given[name]
        maker = self._maker(name, before)
        if maker is None:
            raise KeyError(f"no stage of this recipe makes {name}")
        self._settle(maker)
        if maker.read is None and maker.sound_only and not self._is_sound(maker):
            self._left_out.add(maker.name)
        if maker.name in self._left_out:
            return self._value(name, before)
        if (maker.name, name) not in self._values:
            self._run(maker)
        return self._values[maker.name, name]

    def _run(self, entry: Stage) -> dict[str, Any]:
        """The artefacts of a stage, by name: of a live one made, of a kept one read."""
        if entry.read is None:
            made = entry.run(self._work(entry, self.store.root), **self._inputs(entry, entry.needs(self.recipe)))
        else:
            work = self._work(entry, self._kept[entry.name].folder)
            made = entry.read(work, **self._inputs(entry, entry.reads))
        artefacts = made if len(entry.makes) > 1 else {entry.makes[0]: made}
        for name in entry.makes:
            self._values[entry.name, name] = artefacts[name]
        return artefacts

    def _inputs(self, entry: Stage, needs: tuple[str, ...]) -> dict[str, Any]:
        place, inputs = self._line.index(entry), {}
        for name in entry.first:
            self._value(name, place)
        for need in needs:
            if need.endswith(".*"):
                names = self._makers(need, place)
                inputs[need[:-2]] = {n.removeprefix(need[:-1]): self._value(n, place) for n in names}
                continue
            try:
                value = self._value(need.rstrip("?"), place)
            except KeyError:
                if not need.endswith("?"):
                    raise
                value = None
            inputs[need.rstrip("?").replace(".", "_")] = value
        return inputs

    def _work(self, entry: Stage, folder: Path) -> Work:
        recipe = self.recipe
        return Work(entry.spec(recipe), recipe.seed, int(recipe.memory * 2**30), self.reporter, folder)


def _always(recipe: Recipe) -> dict[str, Any]:
    return {"seed": recipe.seed, "memory": recipe.memory}


def _plain(spec: Any) -> Any:
    if isinstance(spec, BaseModel):
        return spec.model_dump(mode="json")
    if isinstance(spec, Mapping):
        return {key: _plain(value) for key, value in spec.items()}
    return [_plain(value) for value in spec] if isinstance(spec, (list, tuple)) else spec


def versions() -> dict[str, str]:
    """What decides, beside the recipe, what a stage makes."""
    packages = {name: metadata.version(name) for name in _VERSIONS}
    return {"structprune": code_digest(), "torch": str(torch.__version__), **packages}
