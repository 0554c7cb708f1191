"""A digest that identifies data, and changes when the data does.

It covers the values of tensors, and the path, size and time of change of files. A user's dataset is too long to be read
for this: of it the digest covers the length, eight samples and the code that makes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import Subset, TensorDataset

from ..process_state import seeded
from .image_files import ImageFiles
from .loading import is_dataset
from .record import Data

SAMPLES = 8


def data_digest(data: Data) -> str:
    """SHA-256 of the data, as far as it can be told without reading all of it."""
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
    for plain in (data.labelled, data.classes, data.workers, data.identity, dict(data.images), list(data.names)):
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
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _sampled(part: Any) -> Iterator[Any]:
    yield type(part).__qualname__
    if not is_dataset(part):
        return
    yield len(part)
    indices = sorted({round(i * (len(part) - 1) / (SAMPLES - 1)) for i in range(SAMPLES)})
    with seeded():
        samples = [part[index] for index in indices]
    yield from samples
