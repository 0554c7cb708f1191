"""How good a network is at its task, and how near it is to the dense one, measured batch by batch."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import onnxruntime
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .calibration.batches import Batch
from .data.loading import Stream, loader_of
from .errors import ModelError, RecipeError
from .modules import evaluating
from .process_state import memory_reused
from .tasks.metrics import Metric, Tally
from .tasks.task import Task
from .user_code_calls import in_one_line

BATCH_SIZE = 32
KEPT = 2**28  # bytes of the dense network's outputs that are kept; beyond, it runs beside each network

Network: TypeAlias = nn.Module | str | Path | onnxruntime.InferenceSession


@dataclass(frozen=True)
class Quality:
    """The measured quality of a network on `n` held-out samples.

    `metric` is the task's first metric if there are targets, else the first that compares with the dense network.
    `others` holds the task's other metrics, `likeness` all that compare with the dense network, by name, with targets
    (`Task.retention`) or without. `labelled` says whether the value was measured beside targets.
    """

    metric: str
    value: float
    higher_is_better: bool
    n: int
    others: dict[str, float] = field(default_factory=dict)
    likeness: dict[str, float] = field(default_factory=dict)
    labelled: bool = True

    @property
    def kl(self) -> float | None:
        """KL from the dense network if that stands in for quality, as there are no labels; else None."""
        return None if self.labelled else self.likeness.get("kl")

    def better_than(self, other: Quality) -> bool:
        """Whether this value is strictly the better one."""
        return self.value > other.value if self.higher_is_better else self.value < other.value

    def drop_from(self, other: Quality) -> float:
        """By how much the value is worse than the other's; negative if it is better."""
        return other.value - self.value if self.higher_is_better else self.value - other.value


class Judge:
    """Measures networks on one held-out split, beside one dense network.

    Outputs are measured as they come: of a network's only one batch is held, of the dense network's as many as `KEPT`
    allows. The last batch counts as all others do.
    """

    def __init__(
        self,
        task: Task,
        test: Stream,
        dense: nn.Module,
        *,
        labelled: bool = True,
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
    ) -> None:
        """`test` is a torch Dataset, or an iterable of batches that can be read again."""
        self.task, self.test, self.network = task, test, dense
        self.labelled, self.batch_size, self.workers = labelled, batch_size, workers
        self._kept: list[tuple[int, Any]] | None = None  # by batch: of which inputs, and the outputs
        self._known: Quality | None = None

    @property
    def dense(self) -> Quality:
        """The quality of the dense network."""
        if self._known is None:
            self._known = self(self.network)
        return self._known

    @memory_reused()
    def __call__(self, network: Network) -> Quality:
        """Measures a module, in evaluation mode, or an ONNX file or session of the same inputs and outputs.

        Args:
            network: What to measure.

        Returns:
            Its quality.

        Raises:
            RecipeError: The split is empty, or does not fit the task.
            ModelError: An ONNX file has other inputs or outputs than the dense network.
        """
        metrics = self.task.metrics() if self.labelled else []
        likeness = self.task.likeness()
        tallies, alike = _tallies(metrics), _tallies(likeness)
        retained = _tallies(self.task.retention() if metrics else [])
        if not metrics and not likeness:
            raise RecipeError(f"task {self.task.name} compares nothing with the dense network, and there are no labels")
        opened = _session(network) if isinstance(network, (str, Path)) else network
        count = 0
        for batch, dense in self._batches():
            if metrics and batch.labels is None:
                raise RecipeError("the held-out data has no labels: set data.labels=false, or give pairs")
            own = network is self.network
            outputs = dense if own else self._outputs(opened, batch, dense)
            # what the task can't measure of the dense network is its fault, or the data's; of another, the network's
            with in_one_line(RecipeError, f"task {self.task.name}") if own else nullcontext():
                if metrics:
                    self.task.check(outputs, batch.labels)
                    _update(tallies, outputs, batch.labels)
                    _update(retained, outputs, (dense, batch.labels))
                _update(alike, outputs, dense)
            count += self.task.count(batch)
        if not count:
            raise RecipeError("there is no held-out data to measure quality on: give at least one sample")
        measured, nearness = _computed(tallies), _computed([*alike, *retained])
        first, values = (metrics[0], measured) if metrics else (likeness[0], nearness)
        if first.name not in values:
            raise RecipeError(f"task {self.task.name}: {first.name} has no value on this data")
        others = {name: value for name, value in measured.items() if name != first.name}
        return Quality(first.name, values[first.name], first.higher_is_better, count, others, nearness, bool(metrics))

    def _batches(self) -> Iterator[tuple[Batch, Any]]:
        """Each batch with the dense network's outputs, which are computed once if they are few."""
        fresh: list[tuple[int, Any]] | None = [] if self._kept is None else None
        size = 0
        for index, raw in enumerate(loader_of(self.test, self.batch_size, self.task.collate, workers=self.workers)):
            with in_one_line(RecipeError, f"task {self.task.name} makes no batch of the held-out data"):
                batch = self.task.batch(raw)
            mark = _fingerprint(batch)
            known = self._kept[index] if self._kept is not None and index < len(self._kept) else None
            if known is not None and known[0] == mark:
                outputs = known[1]
            else:
                with in_one_line(RecipeError, "the dense network does not run on the held-out data"):
                    outputs = _run(self.network, batch)
            if fresh is not None:
                size += sum(x.numel() * x.element_size() for x in pytree.tree_leaves(outputs) if isinstance(x, Tensor))
                fresh.append((mark, outputs))
                fresh = fresh if size <= KEPT else None
            yield batch, outputs
        if fresh is not None:
            self._kept = fresh

    def _outputs(self, network: nn.Module | onnxruntime.InferenceSession, batch: Batch, like: Any) -> Any:
        if isinstance(network, nn.Module):
            return _run(network, batch)
        return _run_session(network, batch, like, self.network)


def _session(path: str | Path) -> onnxruntime.InferenceSession:
    if not Path(path).is_file():
        raise RecipeError(f"there is no ONNX file {path}")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _fingerprint(batch: Batch) -> int:
    """A checksum of a batch's inputs, to recognise them: a loader that shuffles gives others each time."""
    checksum = 0
    for x in batch.inputs.flat():
        if isinstance(x, Tensor):
            checksum = zlib.crc32(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data, checksum)
        else:
            checksum = zlib.crc32(repr(x).encode(), checksum)
    return checksum


def _run(model: nn.Module, batch: Batch) -> Any:
    """A module's outputs, on the CPU."""
    with evaluating(model):
        outputs = batch.inputs.beside(model).call(model)
    return pytree.tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, outputs)


def _run_session(session: onnxruntime.InferenceSession, batch: Batch, like: Any, model: nn.Module) -> Any:
    """A session's outputs, in the structure of the dense network's."""
    flat, named = batch.inputs.flat(), batch.inputs.names(model)
    arrays = {name: x for name, x in zip(named, flat, strict=True) if isinstance(x, Tensor)}
    names = [entry.name for entry in session.get_inputs()]
    if not set(names) <= set(arrays):
        if len(names) != len(arrays):
            raise ModelError(f"the ONNX file takes {', '.join(names)}, and the data gives {', '.join(arrays)}")
        arrays = dict(zip(names, arrays.values(), strict=True))
    results = [torch.from_numpy(x) for x in session.run(None, {name: arrays[name].numpy() for name in names})]
    leaves, spec = pytree.tree_flatten(like)
    if len(results) != sum(isinstance(x, Tensor) for x in leaves):
        raise ModelError(f"the ONNX file gives {len(results)} tensors, and the dense network another number of them")
    queue = iter(results)
    return pytree.tree_unflatten([next(queue) if isinstance(x, Tensor) else x for x in leaves], spec)


def _tallies(metrics: Iterable[Metric]) -> list[tuple[Metric, Tally]]:
    return [(metric, metric.make()) for metric in metrics]


def _update(tallies: Iterable[tuple[Metric, Tally]], outputs: Any, compared: Any) -> None:
    for _, tally in tallies:
        tally.update(outputs, compared)


def _computed(tallies: Iterable[tuple[Metric, Tally]]) -> dict[str, float]:
    values = {metric.name: tally.compute() for metric, tally in tallies}
    return {name: value for name, value in values.items() if value is not None}
