"""What the readers of plans, saved networks and recipes do with files that someone has changed.

Whatever the file says, a reader gives what it reads or one of the project's own errors: in a second of the processor's
time, in bounded memory, without a file written, a process started or a function of the file's choice called.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

import structprune as sp

from ...errors import StructPruneError
from ...recipe import read_recipe
from ...shipped_recipes import shipped
from ...store.weights import digest
from ..as_users import users
from .mutations import as_json, changed, mangled, other_header

SECONDS = 1.0  # of the processor's time, for one file
KINDS = ("plan", "prune", "load", "load with model", "recipe")
_own = users("reader_networks")


@dataclass
class Saved:
    """A good saved network: its dense model, plan.json as data, and the bytes of both files."""

    model: nn.Module
    data: dict[str, Any]
    plan: bytes
    weights: bytes


def saved_networks(folder: Path) -> list[Saved]:
    """Two networks in both forms."""
    networks: list[Saved] = []
    torch.manual_seed(0)
    for model in (_own.Held().eval(), _own.blocks().eval()):
        for form in ("module", "graph"):
            graph = sp.trace(model, torch.randn(1, 3, 9, 9), form=form)
            plan = sp.plan(graph, sp.score(graph, "l1"), budget={"params": 0.5}, align=1)
            place = sp.save(sp.prune(model, plan), plan, folder / f"good{len(networks)}")
            text = (place / "plan.json").read_bytes()
            sp.load(place)  # once, before anything is watched: torch imports parts of itself
            sp.load(place, model)
            networks.append(Saved(model, json.loads(text), text, (place / "slim.safetensors").read_bytes()))
    return networks


def recipes() -> list[bytes]:
    """The recipes that come with the package."""
    paths = sorted(shipped().values())
    for path in paths:
        read_recipe(path)
    return [path.read_bytes() for path in paths]


class Watch:
    """Counts what no reader does: writing, starting processes, connecting, unpickling, importing strange modules."""

    _EVENTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "socket.bind",
               "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod",
               "shutil.rmtree", "shutil.copyfile", "pickle.find_class", "ctypes.dlopen", "marshal.loads",
               "urllib.Request", "webbrowser.open", "tempfile.mkstemp", "tempfile.mkdtemp")  # fmt: skip
    _KNOWN = ("torch", "timm", "structprune", "numpy", "yaml", "pydantic", "pydantic_core", "safetensors", "functorch")

    def __init__(self) -> None:
        self.active, self.events = False, list[str]()
        sys.addaudithook(self._event)  # which can't be taken out again, so it is one for all

    def _event(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            flags = args[2] if isinstance(args[2], int) else 0
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
                self.events.append(f"open {args[0]!r} to write")
        elif event in self._EVENTS:
            self.events.append(event)
        elif event == "import" and args[0].partition(".")[0] not in (*self._KNOWN, *sys.stdlib_module_names):
            self.events.append(f"import {args[0]}")

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        self.active, self.events = True, []
        try:
            yield
        finally:
            self.active = False


WATCH: list[Watch] = []


@dataclass
class Result:
    """What a reader did with one file: `read`, `refused`, or what is `wrong` with it."""

    kind: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0


MISTAKES = 11  # lines that a recipe's error may have: one for each of ten, and how many more there are


def _is_in_lines(text: str, most: int) -> bool:
    """Whether an error has no more lines than it may, each of which begins with the file that it is about."""
    lines = text.split("\n")
    return len(lines) <= most and all(line.startswith(lines[0].partition(": ")[0]) for line in lines)


class Readers:
    """Files number 0, 1, 2, ... of a seed, each read by one of the readers."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = folder, seed
        self.networks, self.recipes = saved_networks(folder), recipes()
        self.place = folder / "changed"
        self.place.mkdir(exist_ok=True)
        if not WATCH:
            WATCH.append(Watch())

    def read(self, number: int) -> Result:
        """Makes file `number`, and reads it."""
        rng = random.Random(f"{self.seed}/{number}")
        kind = rng.choices(KINDS, (2, 2, 4, 2, 2))[0]
        step = self._recipe(rng) if kind == "recipe" else self._network(kind, rng)
        before = self._files()
        _own.called.clear()
        error, start = None, time.process_time()
        with warnings.catch_warnings(), WATCH[0].on():
            warnings.simplefilter("ignore")
            try:
                step()
            except StructPruneError as raised:
                error = raised
            except BaseException as raised:  # a panic of Rust's is no Exception
                if isinstance(raised, KeyboardInterrupt):
                    raise
                where = traceback.extract_tb(raised.__traceback__)[-1]
                detail = f"{type(raised).__name__}: {str(raised)[:200]} ({where.filename}:{where.lineno})"
                return Result(kind, "raised", detail)
        seconds = time.process_time() - start
        if events := [*WATCH[0].events, *_own.called]:
            return Result(kind, "executed", ", ".join(events[:5]), seconds)
        if self._files() != before:
            return Result(kind, "wrote", str(sorted(self._files() ^ before)[:3]), seconds)
        if error is not None and not _is_in_lines(str(error), MISTAKES if kind == "recipe" else 1):
            return Result(kind, "not one line", repr(str(error)[:300]), seconds)
        if seconds > SECONDS:
            return Result(kind, "slow", f"{seconds:.1f} s", seconds)
        return Result(kind, "read" if error is None else "refused", str(error or ""), seconds)

    def _files(self) -> set[tuple[str, int, int]]:
        entries = [entry.stat() for entry in os.scandir(self.place)]
        names = sorted(entry.name for entry in os.scandir(self.place))
        return {(name, 0, 0) for name in (*names, *os.listdir())} | {("", e.st_size, e.st_mtime_ns) for e in entries}

    def _recipe(self, rng: random.Random) -> Any:
        text = rng.choice(self.recipes)
        if rng.random() < 0.5:
            text = mangled(text, rng)
        else:
            data = changed(yaml.safe_load(text), rng)
            try:
                text = yaml.safe_dump(data, sort_keys=False).encode("utf-8", "replace")
            except RecursionError:  # of yaml's writer, for what is very deep now
                text = as_json(data, rng)
        (self.place / "recipe.yaml").write_bytes(text)
        return partial(read_recipe, self.place / "recipe.yaml")

    def _network(self, kind: str, rng: random.Random) -> Any:
        good = rng.choice(self.networks)
        plan, weights, data = good.plan, good.weights, None
        if kind in ("plan", "prune") or rng.random() < 0.7:
            if rng.random() < 0.3:
                plan = mangled(plan, rng)
            else:
                data = changed(self._part(good.data, rng), rng) if rng.random() < 0.1 else self._whole(good.data, rng)
        if kind in ("plan", "prune"):
            text = (plan if data is None else as_json(data, rng)).decode("utf-8", "replace")
            return partial(_plan, text, good.model if kind == "prune" else None)
        if (data is None and plan is good.plan) or rng.random() < 0.2:
            weights = other_header(weights, rng) if rng.random() < 0.6 else mangled(weights, rng)
        if isinstance(data, dict) and rng.random() < 0.8:
            weights = _signed(data, weights)
        elif data is None and plan is good.plan and rng.random() < 0.8:
            data = json.loads(plan)
            weights = _signed(data, weights)
        (self.place / "plan.json").write_bytes(plan if data is None else as_json(data, rng))
        (self.place / "slim.safetensors").write_bytes(weights)
        return partial(sp.load, self.place, good.model if kind == "load with model" else None)

    def _whole(self, data: dict[str, Any], rng: random.Random) -> Any:
        """The data with changes in one of its fields, most often in what builds the network."""
        if rng.random() < 0.1:
            return changed(data, rng)
        fields = [name for name in ("architecture", "program", "keep", "attributes") if data.get(name)]
        name = rng.choice(fields if rng.random() < 0.85 else list(data))
        field = changed([data[name]], rng)
        return {**data, name: field[0]} if field else {key: value for key, value in data.items() if key != name}

    def _part(self, data: dict[str, Any], rng: random.Random) -> Any:
        return data if rng.random() < 0.7 else data.get(rng.choice(list(data)), {}) or {}


def _plan(text: str, model: nn.Module | None) -> Any:
    plan = sp.Plan.from_json(text)
    return plan if model is None else sp.prune(model, plan)


def _signed(data: dict[str, Any], weights: bytes) -> bytes:
    """Weights and plan that name each other, as a forger would make them: to reach what lies behind the hashes."""
    with contextlib.suppress(Exception):
        plan = sp.Plan.from_data(data)
        length = int.from_bytes(weights[:8], "little")
        header = json.loads(weights[8 : 8 + length])
        header["__metadata__"] = {"format": "pt", "plan": digest(plan)}
        text = json.dumps(header).encode()
        weights = len(text).to_bytes(8, "little") + text + weights[8 + length :]
    data["weights"] = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    return weights
