"""Attention whose heads have fewer channels: the layers that make queries, keys and values make others instead.

Which channels go is chosen by a criterion, but queries and keys meet in their product only, and values in the layer
that reads them. So the layers that make them are free to make any mixtures of the dense network's channels, and make
those that say most (see `subspaces`): logits, and what heads add, change as little as so few channels allow, up to what
is the same for all keys, which a softmax does not see. This is exact where the dense network's own logits, or values,
are of no higher rank; else it is least squares, each head's by itself. CORP (arXiv 2602.05243) fits the lost part of
logits through the channels that stay, which is one of the choices here and never a better one.

The mixtures are of what the layer makes, so nothing but moves and a number may come between it and the product:
queries that are normalised or rotated stay as they were cut, and notes say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..calibration import Batch, WritableNetwork
from ..graph.attention import Heads
from ..memory_limits import LIMIT
from ..records import Plan
from .head_moments import in_passes, observe
from .head_tasks import HeadTask, head_tasks, kept_of
from .moments import FOLDS
from .subspaces import Subspace, best_subspace


class Mixture:
    """What a layer of the slim network is to make: some of the dense one's channels, and mixtures of others.

    Attributes:
        kept: the dense channel that each slim channel is, as the cut left it.
        blocks: slim channels, the dense channels that they mix, and the matrix by which they do.
    """

    def __init__(self, kept: np.ndarray) -> None:
        self.kept = kept
        self.blocks: list[tuple[np.ndarray, np.ndarray, Tensor]] = []

    def of(self, channels: Tensor) -> Tensor:
        """Mixes the dense channels, shape (dense channels, ...), to slim ones."""
        mixed = channels[self.kept]
        for rows, columns, matrix in self.blocks:
            mixed[rows] = torch.tensordot(matrix.to(channels), channels[columns], 1)
        return mixed


@dataclass
class Mixtures:
    """What was changed in the slim network.

    Attributes:
        layers: what layers make now, by the keys of their weights.
        solutions: how good that is, by the module of each product and what it multiplies.
        changed: the keys of all weights that were changed.
    """

    layers: dict[str, Mixture] = field(default_factory=dict)
    solutions: dict[str, Subspace] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)


def compensate(
    dense: WritableNetwork,
    slim: WritableNetwork,
    plan: Plan,
    batches: Sequence[Batch],
    *,
    ridge: float | None = None,
    memory: float = LIMIT,
) -> Mixtures:
    """Changes the layers of `slim` that make queries, keys and values of fewer channels, and those that read values.

    Args:
        dense: the dense network.
        slim: the network that is mended; `notes` says what keeps its weights, and why.
        plan: by which it was cut.
        batches: the calibration images.
        ridge: as in `best_subspace`.
        memory: bytes for second moments, and for what is computed at a time.

    Returns:
        What the layers make now, and how good that is.
    """
    writer = _Writer(dense, slim, plan)
    for tasks in in_passes(list(head_tasks(dense, slim, plan)), min(FOLDS, len(batches)), memory):
        writer.inputs = observe(dense, tasks, batches, memory)
        for task in tasks:
            if not task.left:
                slim.notes.append(f"{task.dense.module} stays as cut: batches of other sizes hide which head is which")
                continue
            solution = _solve(task, dense, plan, ridge)
            writer.mixtures.solutions[f"{task.dense.module} {'values' if task.values else 'logits'}"] = solution
            if math.isfinite(solution.ridge):
                writer.write(task, solution)
    return writer.mixtures


def _solve(task: HeadTask, dense: WritableNetwork, plan: Plan, ridge: float | None) -> Subspace:
    heads, kept = (torch.from_numpy(array) for array in (task.heads, task.kept))
    if not task.values:
        left, right = ([moments[heads] for moments in side] for side in (task.left, task.right))
        return best_subspace(left, right, kept, ridge, task.sides)
    reader = task.dense.reader
    mean = task.mean() if dense.can_shift(reader.layer) else torch.zeros_like(task.sums[0])
    left = []
    for moments, sums, rows in zip(task.left, task.sums, task.rows, strict=True):
        across = sums.unsqueeze(2) * mean.unsqueeze(1)
        own = rows[:, None, None] * mean.unsqueeze(2) * mean.unsqueeze(1)
        left.append((moments - across - across.mT + own)[heads])
    weight = _read_by(dense, reader, plan)[heads]
    return best_subspace(left, [weight.mT @ weight] * len(left), kept, ridge, refitted=True)


def _read_by(dense: WritableNetwork, reader: Heads, plan: Plan) -> Tensor:
    """The weights by which a layer reads each head, shape (heads, outputs × places of the kernel, width)."""
    weight = dense.state[reader.layer.weight].detach().double()
    weight = weight[kept_of(plan, reader.layer.weight, 0, len(weight))]
    taps = weight.reshape(*weight.shape[:2], -1)[:, reader.channels]  # (outputs, heads, width, places)
    return taps.movedim(1, 0).transpose(2, 3).flatten(1, 2)


class _Writer:
    """Gives layers of the slim network the weights that mix the dense one's channels."""

    def __init__(self, dense: WritableNetwork, slim: WritableNetwork, plan: Plan) -> None:
        self.dense, self.slim, self.plan = dense, slim, plan
        self.mixtures = Mixtures()
        self.inputs: dict[str, Tensor] = {}  # means of what enters dense layers, by the keys of their weights

    def write(self, task: HeadTask, solution: Subspace) -> None:
        """Writes what the two layers of a product make, or how the one that reads values reads them."""
        if task.values:
            self.mix(task, task.dense.right, task.slim.right, solution.left)
            self.read(task, solution)
            return
        for changes, there, here, matrices in (
            (task.sides[0], task.dense.left, task.slim.left, solution.left),
            (task.sides[1], task.dense.right, task.slim.right, solution.right),
        ):
            if changes:
                self.mix(task, there, here, matrices)

    def mix(self, task: HeadTask, there: Heads | str, here: Heads | str, matrices: Tensor) -> None:
        """Makes a layer mix the dense channels of each head."""
        assert isinstance(there, Heads)
        assert isinstance(here, Heads)
        layer, key = here.layer, here.layer.weight
        weight = self.dense.state[key].detach().double()
        mixture = self.mixtures.layers.setdefault(key, Mixture(kept_of(self.plan, key, 0, len(weight))))
        for head, channels in enumerate(here.channels):
            mixture.blocks.append((channels, there.channels[task.heads[head]], matrices[head].mT))
        kept = kept_of(self.plan, key, 1, weight.shape[1])
        self.slim.write(key, mixture.of(weight[:, kept]))
        self.mixtures.changed.add(key)
        if layer.bias:
            gone = np.setdiff1d(np.arange(weight.shape[1]), kept)
            taps = weight.reshape(*weight.shape[:2], -1).sum(2)
            lost = taps[:, gone] @ self.inputs[key][gone]
            self.slim.write(layer.bias, mixture.of(self.dense.state[layer.bias].detach().double() + lost))

    def read(self, task: HeadTask, solution: Subspace) -> None:
        """Gives the layer that reads values the weights that go with what is made of them now, and the means of what
        is gone to its bias."""
        reader = task.slim.reader
        layer, key = reader.layer, reader.layer.weight
        weight = self.slim.state[key].detach().double().clone()
        before = _read_by(self.dense, task.dense.reader, self.plan)
        after = before[task.heads] @ solution.right
        for channels, each in zip(reader.channels, after, strict=True):
            taps = each.reshape(len(weight), -1, each.shape[1]).transpose(1, 2)
            weight[:, channels] = taps.reshape(len(weight), len(channels), *weight.shape[2:])
        self.slim.write(key, weight)
        self.mixtures.changed.add(key)
        if self.slim.can_shift(layer):
            mean = task.mean().unsqueeze(2)
            lost = (before @ mean).sum(0) - (after @ (solution.left.mT @ mean[task.heads])).sum(0)
            offset = lost.reshape(len(weight), -1).sum(1)
            if layer.bias:
                self.slim.write(layer.bias, self._dense(layer.bias) + offset)
            elif layer.norm is not None:  # which sees what the dense one sees: its statistics are those of that
                self.slim.write(layer.norm.mean, self._dense(layer.norm.mean) - offset)
                self.slim.write(layer.norm.variance, self._dense(layer.norm.variance))

    def _dense(self, key: str) -> Tensor:
        """What stays of a vector of the dense network."""
        vector = self.dense.state[key].detach().double()
        return vector[kept_of(self.plan, key, 0, len(vector))]
