"""Second moments of queries, keys and what attention makes of values, for each head of the dense network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..calibration import Batch, Observer, WritableNetwork
from ..graph.attention import Heads
from ..graph.layers import Layer
from ..graph.recorded_calls import CallSite
from ..memory_limits import parts
from ..modules import evaluating
from .head_tasks import HeadTask
from .moments import FOLDS
from .refits import MATRICES, WINDOWS


def in_passes(tasks: Sequence[HeadTask], folds: int, memory: float) -> Iterator[list[HeadTask]]:
    """As many tasks at a time as their moments fit into their share of the memory."""
    held: list[HeadTask] = []
    total = 0.0
    for task in tasks:
        heads = task.dense.right if isinstance(task.dense.right, Heads) else task.dense.left
        assert isinstance(heads, Heads)
        size = 8.0 * folds * len(heads.channels) * task.dense.width**2 * 2
        if held and total + size > memory * MATRICES:
            yield held
            held, total = [], 0.0
        held.append(task)
        total += size
    if held:
        yield held


def observe(
    dense: WritableNetwork, tasks: Sequence[HeadTask], batches: Sequence[Batch], memory: float
) -> dict[str, Tensor]:
    """Gathers the moments of tasks in one pass; gives the mean input of each of their layers, by its weight."""
    sums: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()
    folds = min(FOLDS, len(batches))
    layers = {side.layer for task in tasks for side in (task.dense.left, task.dense.right) if isinstance(side, Heads)}

    def inputs(layer: Layer) -> Callable[[tuple[Any, ...], Any], None]:
        def see(args: tuple[Any, ...], result: Any) -> None:
            x = layer.input_of(args).movedim(layer.axis, -1)
            x = x.reshape(-1, x.shape[-1])
            sums[layer.weight] = sums.get(layer.weight, 0) + x.sum(0, dtype=torch.float64)
            counts[layer.weight] += len(x)

        return see

    def products(ours: list[HeadTask], fold: int) -> Callable[[tuple[Any, ...], Any], None]:
        def see(args: tuple[Any, ...], result: Tensor) -> None:
            for task in ours:  # a fused call multiplies queries and keys, and weighs values
                if task.values:
                    _see_values(task, fold, task.dense.attended(result), memory)
                else:
                    _see_logits(task, fold, *task.dense.queries_and_keys(args), memory)

        return see

    by_site: dict[CallSite, list[HeadTask]] = {}
    for task in tasks:
        by_site.setdefault(task.dense.site, []).append(task)
    with evaluating(dense.module):
        for number, batch in enumerate(batches):
            fold = number * folds // len(batches)
            watch = {layer.site: inputs(layer) for layer in layers}
            with Observer(watch | {site: products(ours, fold) for site, ours in by_site.items()}):
                batch.inputs.call(dense.module)
    return {key: total / counts[key] for key, total in sums.items()}


def _see_logits(task: HeadTask, fold: int, q: Tensor, k: Tensor, memory: float) -> None:
    if task.dense.centred:
        k = k - k.mean(-2, keepdim=True)
    lead = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    head = _heads_of(task, lead)
    if head is None:
        return
    q, k = (x.expand(*lead, *x.shape[-2:]).reshape(-1, *x.shape[-2:]) for x in (q, k))
    for sums, x in ((task.left, q), (task.right, k)):
        _add(sums, fold, head, _products(x, memory))


def _see_values(task: HeadTask, fold: int, o: Tensor, memory: float) -> None:
    head = _heads_of(task, o.shape[:-2])
    if head is None:
        return
    o = o.reshape(-1, *o.shape[-2:])
    _add(task.left, fold, head, _products(o, memory))
    _add(task.sums, fold, head, o.sum(1, dtype=torch.float64))
    _add(task.rows, fold, head, torch.full((len(o),), float(o.shape[1]), dtype=torch.float64, device=o.device))


def _heads_of(task: HeadTask, lead: Sequence[int]) -> Tensor | None:
    sides = [side for side in (task.dense.left, task.dense.right) if isinstance(side, Heads)]
    for side in sorted(sides, key=lambda side: -len(side.channels)):
        if len(side.pattern.shape) == len(lead):
            index = side.of(lead)
            return None if index is None else torch.from_numpy(index)
    return None


def _products(x: Tensor, memory: float) -> Tensor:
    """xᵀx of each (tokens, channels), in float64."""
    each = 4.0 * x.element_size() * (x.shape[1] * x.shape[2] + x.shape[2] ** 2)
    return torch.cat([(x[part].mT @ x[part]).double() for part in parts(len(x), each, memory * WINDOWS)])


def _add(sums: list[Tensor], fold: int, head: Tensor, each: Tensor) -> None:
    """Adds what was seen of each index of the leading axes to the sums of its head."""
    total = torch.zeros(int(head.max()) + 1, *each.shape[1:], dtype=torch.float64, device=each.device)
    total.index_add_(0, head.to(each.device), each)
    while len(sums) <= fold:
        sums.append(torch.zeros_like(total))
    sums[fold] += total
