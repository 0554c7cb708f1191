"""The network as it comes, and the data."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...data.tensors import Tensors as Data
from ...data.tensors import load_tensors as load_data
from ...modules import tensors
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
    "data",
    after="model",
    needs=("model",),
    makes=("data",),
    spec=lambda recipe: recipe.data,
    content=lambda data: data_digest(data),
)
def load(work: Work, model: nn.Module) -> Data:
    return load_data(work.spec, model, work.seed)


def network_digest(model: nn.Module) -> str:
    """SHA-256 of a network's structure, the code of its classes, and its tensors."""
    code = {type(module): None for module in model.modules()}
    return _digest([repr(model), *map(_code, code), getattr(model, "code", ""), *tensors(model).items()])


def _code(cls: type) -> str:
    """The text of the file that a class is from; its name where there is none."""
    try:
        file = inspect.getsourcefile(cls)
        return Path(file).read_text(encoding="utf-8") if file else str(cls)
    except (TypeError, OSError, ValueError):
        return str(cls)


def data_digest(data: Data) -> str:
    """SHA-256 of what the images and labels are."""
    return _digest((field.name, getattr(data, field.name)) for field in dataclasses.fields(data))


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
