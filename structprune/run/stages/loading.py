"""The network as it comes, the task and the data."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ... import usercode
from ...data import Data, load_data
from ...data.identity import data_digest
from ...modules import tensors
from ...tasks import Task
from ...tasks.own import make_task
from ..stage import Work, stage


@stage(
    "model",
    after=None,
    makes=("model", "dense"),
    spec=lambda recipe: recipe.model,
    content=lambda model: network_digest(model),
)
def build(work: Work) -> Mapping[str, nn.Module]:
    from ...models import build_model

    model = build_model(work.spec, work.seed, work.reporter.stage)
    return {"model": model, "dense": model}


@stage(
    "task",
    after="model",
    makes=("task",),
    spec=lambda recipe: recipe.task,
    content=lambda task: task_digest(task),
)
def choose_task(work: Work) -> Task:
    return make_task(work.spec, work.reporter.stage)


@stage(
    "data",
    after="task",
    needs=("model", "task"),
    makes=("data",),
    spec=lambda recipe: {"data": recipe.data, "choosing": recipe.chooses},
    content=lambda data: data_digest(data),
)
def load(work: Work, model: nn.Module, task: Task) -> Data:
    spec, choosing = work.spec["data"], work.spec["choosing"]
    data = load_data(spec, model, work.seed, task=task, choosing=choosing, tell=work.reporter.stage)
    work.say_notes(data.notes)
    return data


def task_digest(task: Task) -> str:
    """SHA-256 of a task's options and the code of its class."""
    return _digest([_code(type(task)), *sorted((name, repr(value)) for name, value in vars(task).items())])


def network_digest(model: nn.Module) -> str:
    """SHA-256 of a network's structure, the code of its classes, and its tensors."""
    code = {type(module): None for module in model.modules()}
    return _digest([repr(model), *map(_code, code), getattr(model, "code", ""), *tensors(model).items()])


def _code(cls: type) -> str:
    """The text of the file that a class is from, and of what goes with a file of the user's; its name where none is."""
    try:
        file = inspect.getsourcefile(cls)
        paths = [Path(file), *usercode.files_with(Path(file))] if file else []
        return "\0".join(path.read_text(encoding="utf-8") for path in paths) or str(cls)
    except (TypeError, OSError, ValueError):
        return str(cls)


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
