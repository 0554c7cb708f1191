"""The network as it comes, the task and the data."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ... import user_code
from ...data import Data, load_data
from ...data.identity import data_digest
from ...modules import tensors
from ...tasks import Task
from ...tasks.building import make_task
from ..stage import Work, stage

_VERSIONED = ("torch", "timm", "structprune")  # the code of these is known by its version


@stage(
    "model",
    after=None,
    makes=("model", "dense", "base"),
    spec=lambda recipe: recipe.model,
    content=lambda model, spec: _digest([network_digest(model), spec.model_dump_json()]),
)
def build(work: Work) -> Mapping[str, nn.Module]:
    from ...models import build_model

    model = build_model(work.spec, work.seed, work.reporter.stage)
    return {"model": model, "dense": model, "base": model}


@stage(
    "task",
    after="model",
    makes=("task",),
    spec=lambda recipe: recipe.task,
    content=lambda task, spec: task_digest(task),
)
def choose_task(work: Work) -> Task:
    return make_task(work.spec, work.reporter.stage)


@stage(
    "data",
    after="task",
    needs=("model", "task"),
    makes=("data", "training", "samples", "held_out"),
    spec=lambda recipe: {"data": recipe.data, "choosing": recipe.validates},
    content=lambda data, spec: data_digest(data),
)
def load(work: Work, model: nn.Module, task: Task) -> Mapping[str, Data]:
    """The data, and its parts: what training sees, the `samples` that are traced, scanned and recovered by, and what is
    held out. What sees one part alone is found again, made before, where only another part changes."""
    spec, choosing = work.spec["data"], work.spec["choosing"]
    data = load_data(spec, model, work.seed, task=task, choosing=choosing, tell=work.reporter.stage)
    work.say_notes(data.notes)
    return {
        "data": data,
        "training": dataclasses.replace(data, test=(), calibration=None, notes=()),
        "samples": dataclasses.replace(data, test=(), train=None, validation=None, workers=0, notes=()),
        "held_out": dataclasses.replace(data, train=None, calibration=None, notes=()),
    }


def task_digest(task: Task) -> str:
    """SHA-256 of a task's options and the code of its class."""
    return _digest([*_code([type(task)]), *sorted((name, _shown(value)) for name, value in vars(task).items())])


def network_digest(model: nn.Module) -> str:
    """SHA-256 of a network's structure, the code of its classes, and its tensors."""
    code = _code(type(module) for module in model.modules())
    return _digest([_shown(model), *code, getattr(model, "code", ""), *tensors(model).items()])


def _code(classes: Iterable[type]) -> list[str]:
    """The names of classes, and the code of the modules and packages that they are from."""
    names = dict.fromkeys(f"{cls.__module__}.{cls.__qualname__}" for cls in classes)
    places = dict.fromkeys(name.partition(".")[0] for name in names)
    return [*names, *(user_code.code_of(place) for place in places if place not in _VERSIONED)]


def _shown(value: Any) -> str:
    """Its text, without where in memory things are: a function's place is another in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _digest(entries: Iterable[Any]) -> str:
    total = hashlib.sha256()
    for entry in entries:
        name, value = entry if isinstance(entry, tuple) else ("", entry)
        total.update(f"{name}\0".encode())
        if isinstance(value, Tensor):
            total.update(f"{value.dtype} {tuple(value.shape)}\0".encode())
            total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        else:
            total.update(f"{value}\0".encode())
    return total.hexdigest()
