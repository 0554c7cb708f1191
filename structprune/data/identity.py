"""By what data is known again: a digest that changes when the data does.

Tensors count by their values, files by place, size and time of change. What a user's dataset gives can't be read
through for that: it counts by its length and eight of its samples, beside the code that makes it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import Subset, TensorDataset

from .files import ImageFiles
from .loading import is_dataset
from .record import Data

SAMPLES = 8


def data_digest(data: Data) -> str:
    """SHA-256 of what the data is, as far as it can be known without reading it all."""
    total = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            total.update(f"{value.dtype} {tuple(value.shape)}\0".encode())
            total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            total.update(f"{value}\0".encode())

    def add_all(value: Any) -> None:
        leaves, structure = pytree.tree_flatten(value)
        add(structure)
        for leaf in leaves:
            add(leaf)

    add_all([data.example if isinstance(data.example, Tensor) else (data.example.args, data.example.kwargs)])
    for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        add(name)
        for entry in _parts(part):
            add_all(entry)
    for batch in data.calibration or ():
        add_all((batch.inputs.args, batch.inputs.kwargs, batch.labels))
    for plain in (data.labelled, data.classes, data.workers, data.identity):
        add(plain)
    return total.hexdigest()


def _parts(part: Any) -> Iterator[Any]:
    if part is None:
        return
    if isinstance(part, TensorDataset):
        yield list(part.tensors)
    elif isinstance(part, Subset):
        yield list(part.indices)
        yield from _parts(part.dataset)
    elif isinstance(part, ImageFiles):
        yield repr(part.transform), part.mode, part.allowed, part.replace, part.labels
        for path in part.paths:
            yield str(path), *_state(path)
    else:
        yield from _sampled(part)


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _sampled(part: Any) -> Iterator[Any]:
    yield type(part).__qualname__
    if not is_dataset(part):
        return
    yield len(part)
    with _seeded():
        for index in sorted({round(i * (len(part) - 1) / (SAMPLES - 1)) for i in range(SAMPLES)}):
            yield part[index]


@contextmanager
def _seeded() -> Iterator[None]:
    """The same random numbers each time, and those of the process as they were afterwards."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
