"""What one cell of a recurrent layer computes, in parts: its states over all steps, and what its gates are made of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..graph.recurrent_layers import Cell, RecurrentLayer, Sequences


@dataclass(frozen=True)
class Run:
    """A cell's run over sequences.

    Attributes:
        x: What enters, shape (rows, inputs).
        before: The state that each row starts from, shape (rows, states).
        after: The state that each row ends with, shape (rows, states).
    """

    x: Tensor
    before: Tensor
    after: Tensor


def run_cell(layer: RecurrentLayer, index: int, cell: Cell, state: Mapping[str, Tensor], inputs: Sequences) -> Run:
    """Runs one cell by the op itself.

    Args:
        layer: The layer that it is of.
        index: The number of the cell among all of the layer's, as its first states are stacked.
        cell: The cell.
        state: The network's tensors.
        inputs: What enters this cell.

    Returns:
        Its run.
    """
    weights = [state[key].detach() for key in cell.keys]
    copies = 1 + cell.reverse  # the second direction of two alike is the reverse one
    starts = [part[index] for part in inputs.states]
    stacked = [torch.stack([start] * copies) for start in starts]
    packed = getattr(torch.ops.aten, layer.op).data
    result, *_ = packed(
        inputs.x,
        inputs.sizes,
        stacked if layer.op == "lstm" else stacked[0],
        weights * copies,
        cell.into_bias is not None,
        1,
        0.0,
        False,
        cell.reverse,
    )
    after = result.chunk(copies, dim=1)[-1]
    before = torch.cat([after, starts[0].to(after)])[_before(inputs.sizes, cell.reverse).to(after.device)]
    return Run(inputs.x, before, after)


def entering_next(inputs: Sequences, runs: list[Run]) -> Sequences:
    """What enters the cells of the next layer, of the runs of this one's directions."""
    return replace(inputs, x=torch.cat([run.after for run in runs], dim=1))


def _before(sizes: Tensor, reverse: bool) -> Tensor:
    """For each row the row of the same sample that comes before; first states follow the rows, sample by sample."""
    offsets = sizes.cumsum(0) - sizes
    total = int(sizes.sum())
    step = torch.arange(len(sizes)).repeat_interleave(sizes)
    sample = torch.arange(total) - offsets[step]
    other = step + 1 if reverse else step - 1
    there = other.clamp(0, len(sizes) - 1)
    exists = (other == there) & (sample < sizes[there])
    return torch.where(exists, offsets[there] + sample, total + sample)


def gate_parts(cell: Cell, state: Mapping[str, Tensor], x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """What inputs and what the state before make of the gates, each with its offset: shapes (rows, gates × units)."""
    parts = []
    for values, weight, bias in ((x, cell.into, cell.into_bias), (before, cell.back, cell.back_bias)):
        part = values @ state[weight].detach().mT
        parts.append(part if bias is None else part + state[bias].detach())
    return parts[0], parts[1]


def inner_units(gates: Tensor, sizes: Tensor, start: Tensor, reverse: bool) -> Tensor:
    """The units of an LSTM before they are projected.

    Args:
        gates: What its four gates are made of, shape (rows, 4 × units).
        sizes: As in `Sequences`.
        start: The inner states at first, shape (samples, units).
        reverse: Whether it runs from the last step.

    Returns:
        Shape (rows, units).
    """
    enter, forget, content, leave = gates.chunk(4, dim=1)
    added, kept, shown = enter.sigmoid() * content.tanh(), forget.sigmoid(), leave.sigmoid()
    inner, units = start.clone(), torch.empty_like(shown)
    steps = list(itertools.pairwise([0, *sizes.cumsum(0).tolist()]))
    for first, last in reversed(steps) if reverse else steps:
        rows, samples = slice(first, last), slice(0, last - first)
        inner[samples] = kept[rows] * inner[samples] + added[rows]
        units[rows] = shown[rows] * inner[samples].tanh()
    return units
