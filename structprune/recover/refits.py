"""What each refit of a layer would take, and so in which way and on how many rows it is done."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..calibration import WritableNetwork
from ..calibration.windows import places_of
from ..graph.layers import Layer
from ..memory_limits import amount
from .moments import FOLDS

FEW = 2  # rows for each unknown, under which one factor a channel may be the better fit
ROWS_PER_INPUT = 8  # rows that are sampled for each unknown of an output
PLACES_PER_IMAGE = 16  # at least
ROWS_MOST = 4096  # of a fit from rows: their products take rows² numbers, and rows² times as many steps as inputs
ROWS_LEAST = 32
MATRICES, TARGETS, WINDOWS = 5 / 8, 1 / 4, 1 / 8  # shares of the memory


@dataclass(frozen=True)
class Task:
    """A layer to fit: each of its `blocks` maps `inputs` to `outputs`; `each` output places of an image are sampled, at
    most `rows` of all images. It is fitted from the second moments of its inputs, or where those take too much
    (`moments` bytes), from the rows themselves: `from_rows`. There may be `few` rows for so many inputs."""

    layer: Layer
    blocks: int
    inputs: int
    outputs: int
    each: int
    rows: int
    moments: float
    from_rows: bool
    targets: float
    few: bool = False

    def describe(self) -> str:
        return f"{self.layer.module} ({self.inputs} inputs a window)"


def task_of(
    layer: Layer,
    dense: WritableNetwork,
    slim: WritableNetwork,
    images: int,
    *,
    per_channel: bool,
    memory: float,
    targets: int = 1,
) -> Task | str:
    """How a layer is fitted within `memory` bytes, or why it can't be. `targets` is how many tensors of the dense
    network, of the shape of the layer's outputs, are looked at."""
    weight = slim.state[layer.weight]
    inputs, channels = int(weight[0].numel()), int(weight.shape[1])
    call = layer.recorded_call
    blocks = 1 if layer.kind == "linear" else max(1, int(call.x.shape[1]) // channels)
    outputs = len(weight) // blocks
    places = places_of(call)
    each = max(PLACES_PER_IMAGE, -(-ROWS_PER_INPUT * inputs // images))
    wide = (
        len(dense.state[layer.weight]) * 4 * images * targets
    )  # what one place of each image asks of the dense network
    each = max(1, min(each, places, int(memory * TARGETS / wide)))
    few = images * each < FEW * inputs and not per_channel
    of_weights, of_factors = (
        8.0 * blocks * inputs * (copies * inputs + (FOLDS + 8) * outputs) for copies in (FOLDS + 3, FOLDS + 5)
    )
    few = few and of_factors <= memory * MATRICES  # else factors are left out
    moments = of_factors if per_channel or few else of_weights
    from_rows = moments > memory * MATRICES
    if from_rows:
        each = max(1, min(each, ROWS_MOST // images, _most_rows(memory * MATRICES, outputs) // images))
        if images * each < ROWS_LEAST or images * each > _most_rows(memory * MATRICES, outputs):
            return (
                f"{layer.module} keeps its weights: a refit of its {inputs} inputs a window takes {amount(moments)}, "
                f"and memory allows {amount(memory)}"
            )
    return Task(layer, blocks, inputs, outputs, each, images * each, moments, from_rows, wide * each, few)


def _most_rows(limit: float, outputs: int) -> int:
    """The rows r for which 4 matrices of r² and 4 of r · outputs numbers fit into `limit` bytes."""
    return int((math.sqrt(outputs**2 + limit / 8) - outputs) / 2)


class Targeted(Protocol):
    """What is fitted to so many bytes of outputs of the dense network."""

    @property
    def targets(self) -> float: ...


T = TypeVar("T", bound=Targeted)


def in_passes(tasks: Sequence[T], memory: float) -> Iterator[list[T]]:
    """Tasks in their order, as many at a time as the dense network's outputs of them fit into their share."""
    held: list[T] = []
    total = 0.0
    for task in tasks:
        if held and total + task.targets > memory * TARGETS:
            yield held
            held, total = [], 0.0
        held.append(task)
        total += task.targets
    if held:
        yield held
