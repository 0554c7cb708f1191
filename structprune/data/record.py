"""The record of a run's data, and what a source of data is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from ..calibration.batches import Batch
from ..ops import Inputs
from ..tasks.task import Task
from ..user_code import Tell
from .loading import Stream, whole
from .spec import SOURCES as SOURCES
from .spec import DataSpec


@dataclass(frozen=True)
class Data:
    """Data of a run, prepared as the model wants it.

    `example` is a small batch of real inputs for tracing, gate and export, never of held-out files. `test` is for the
    final measurement alone; choices are made on `validation`, which is there where something was to choose;
    `calibration` and `train` share no file with either. `labelled` says whether `train`, `validation` and `test` come
    with labels. `workers` is how many processes read for a loader. `notes` is what a user should know, and
    `identity` what the data depends on beside its samples: the text of the code that makes it. `images` says how images
    become inputs (see `preprocessing.described`), and `names` what the classes are called, both empty where not known.
    """

    example: Tensor | Inputs
    test: Stream
    train: Dataset | None = None
    validation: Stream | None = None
    calibration: list[Batch] | None = None
    labelled: bool = False
    classes: int | None = None
    workers: int = 0
    notes: Sequence[str] = field(default=())
    identity: str = ""
    images: Mapping[str, Any] = field(default_factory=dict)
    names: Sequence[str] = ()

    @property
    def one(self) -> Any:
        """The example's first sample, as a batch."""
        if isinstance(self.example, Tensor):
            return self.example[:1]
        return self.example.map(lambda x: x[:1] if x.dim() else x)

    @property
    def skipped(self) -> list[str]:
        """The files that could not be read, as far as they have been tried."""
        paths: list[str] = []
        for part in (self.train, self.validation, self.test):
            paths += [str(path) for path in getattr(whole(part), "unreadable", ())]
        return sorted(set(paths))


@dataclass(frozen=True)
class Request:
    """What data is loaded for: a model, a task that makes batches, and whether something will choose by quality."""

    model: nn.Module
    seed: int
    task: Task
    choosing: bool = False
    tell: Tell = print


@dataclass(frozen=True)
class Source:
    """A registered source of data: `load` makes the data from its `spec`."""

    name: str
    description: str
    spec: type[DataSpec]
    load: Callable[[Any, Request], Data] = field(repr=False)
