"""Least squares and means of what recurrent layers read: their inputs, and their own states.

All gates of a cell are outputs of one linear map of its inputs and of the state before, at each step of each sample.
The wanted outputs are what the dense network's gates are made of. Inputs are those of the slim network by now, as for
any layer. The states before are those of the dense network that stay (teacher forcing: Williams & Zipser, A Learning
Algorithm for Continually Running Fully Recurrent Neural Networks, Neural Computation 1989), as the slim network's own
are what is sought. A GRU's candidate takes its part of the state through a gate, so both parts are fitted apart.
Layers of one call follow each other, each on what those before it make by then.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..calibration import WritableNetwork
from ..graph.recorded_calls import CallSite
from ..graph.recurrent_layers import Cell, RecurrentLayer, Sequences, find_recurrent_layers
from ..memory_limits import amount
from ..records import Plan
from .moments import FOLDS, Moments, Solution, Solve, full, ridge_solution, scales
from .recurrent_cells import Run, entering_next, gate_parts, inner_units, run_cell
from .refits import MATRICES, TARGETS
from .slim_outputs import keeps


@dataclass(frozen=True)
class RecurrentTask:
    """A recurrent layer to fit; `targets` are the bytes of what enters the dense network's."""

    layer: RecurrentLayer
    targets: float

    def describe(self) -> str:
        return self.layer.module


def recurrent_tasks(
    dense: WritableNetwork, slim: WritableNetwork, plan: Plan, images: int, memory: float
) -> list[RecurrentTask]:
    """The recurrent layers of the slim network that lost inputs or states, in the order of their calls."""
    tasks = []
    for layer in _wanted(slim, plan, slim.notes):
        cells = [cell for directions in layer.cells for cell in directions]
        inputs = max(slim.state[cell.into].shape[1] + slim.state[cell.back].shape[1] for cell in cells)
        outputs = max(len(slim.state[cell.back]) for cell in cells)
        moments = 8.0 * inputs * ((FOLDS + 3) * inputs + (FOLDS + 8) * outputs)
        widest = max(sum(dense.state[key].shape[1] for key in (cell.into, cell.back)) for cell in cells)
        held = 4.0 * images * layer.steps * widest
        if moments > memory * MATRICES or held > memory * TARGETS:
            slim.notes.append(
                f"{layer.module} keeps its weights: a refit of what it reads takes {amount(max(moments, held))}, and "
                f"memory allows {amount(memory)}"
            )
        else:
            tasks.append(RecurrentTask(layer, held))
    return tasks


def _wanted(network: WritableNetwork, plan: Plan, notes: list[str]) -> list[RecurrentLayer]:
    """The recurrent layers that lost columns, and none of whose channels were merged."""
    layers = []
    for layer in find_recurrent_layers(network.recording):
        if any(keeps(plan, key, 1) is not None for key in layer.keys):
            if plan.merges is not None and any(key in plan.merges["axes"] for key in layer.keys):
                notes.append(f"{layer.module} reads channels that were merged, and is not mended")
            else:
                layers.append(layer)
    return layers


# --- least squares ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Rows of a cell's gates that are fitted together, the weights that make them, and the bias that is fitted too."""

    rows: slice
    weights: tuple[str, ...]
    bias: str | None


def fit_recurrent(
    dense: WritableNetwork,
    slim: WritableNetwork,
    plan: Plan,
    layer: RecurrentLayer,
    there: Sequence[Sequences],
    here: Sequence[Sequences],
    folds: Sequence[int],
    *,
    per_channel: bool,
    ridge: float | None,
) -> Solution:
    """Fits what the cells of a layer read, and writes their weights.

    Args:
        dense: The dense network.
        slim: The network that is mended.
        plan: By which it was cut.
        layer: A recurrent layer of both.
        there: For each batch what enters the dense network's.
        here: For each batch what enters the slim network's.
        folds: Of which fold each batch is.
        per_channel: Whether one factor for each input and each state is fitted, in place of all weights.
        ridge: As in `ridge_solution`.

    Returns:
        One that stands for those of all cells: their errors in the mean, and the least of their ridges.
    """
    fits = _Fits(dense, slim, plan, layer, folds, functools.partial(scales, places=1) if per_channel else full, ridge)
    index = 0
    for directions in layer.cells:
        dense_runs, slim_runs = [], []
        for cell in directions:
            runs = [run_cell(layer, index, cell, dense.state, inputs) for inputs in there]
            if any(keeps(plan, key, 1) is not None for key in cell.keys):
                fits.cell(cell, runs, here, index)
            dense_runs.append(runs)
            slim_runs.append([run_cell(layer, index, cell, slim.state, inputs) for inputs in here])
            index += 1
        there = [entering_next(inputs, list(runs)) for inputs, *runs in zip(there, *dense_runs, strict=True)]
        here = [entering_next(inputs, list(runs)) for inputs, *runs in zip(here, *slim_runs, strict=True)]
    solutions = fits.solutions
    before, after = (sum(getattr(one, name) for one in solutions) / len(solutions) for name in ("before", "after"))
    return Solution(
        solutions[0].weight, solutions[0].bias, min(one.ridge for one in solutions), before, after, solutions[0].rows
    )


@dataclass
class _Fits:
    dense: WritableNetwork
    slim: WritableNetwork
    plan: Plan
    layer: RecurrentLayer
    folds: Sequence[int]
    solve: Solve
    ridge: float | None

    def __post_init__(self) -> None:
        self.solutions: list[Solution] = []

    def cell(self, cell: Cell, runs: Sequence[Run], here: Sequence[Sequences], index: int) -> None:
        """Fits the gates of a cell, and where it has one its projection."""
        rows, states = self.kept(cell.back, 0), self.kept(cell.back, 1)
        before = [run.before[:, states] for run in runs]
        for part in self.parts(cell):
            pairs = []
            for run, inputs, held in zip(runs, here, before, strict=True):
                gates = gate_parts(cell, self.dense.state, run.x, run.before)
                reads = {cell.into: (inputs.x, gates[0]), cell.back: (held, gates[1])}
                x, y = ([reads[key][i] for key in part.weights] for i in (0, 1))
                pairs.append((torch.cat(x, dim=1), functools.reduce(torch.add, y)[:, rows][:, part.rows]))
            self.fit(pairs, part, self.others(cell, part))
        if cell.down is not None:
            outputs = self.kept(cell.down, 0)
            pairs = []
            for run, inputs, held in zip(runs, here, before, strict=True):
                sums = torch.add(*gate_parts(cell, self.slim.state, inputs.x, held))
                units = inner_units(sums, inputs.sizes, inputs.states[1][index], cell.reverse)
                pairs.append((units, run.after[:, outputs]))
            self.fit(pairs, _Part(slice(None), (cell.down,), None), 0)

    def kept(self, key: str, dim: int) -> Tensor:
        """The places of the dense network's axis that are left, all where none went."""
        indices = keeps(self.plan, key, dim)
        return torch.arange(self.dense.state[key].shape[dim]) if indices is None else torch.as_tensor(indices)

    def parts(self, cell: Cell) -> list[_Part]:
        total, both = len(self.slim.state[cell.back]), (cell.into, cell.back)
        if self.layer.op != "gru":
            return [_Part(slice(0, total), both, cell.into_bias)]
        candidate = slice(total * 2 // 3, total)
        return [
            _Part(slice(0, candidate.start), both, cell.into_bias),
            _Part(candidate, (cell.into,), cell.into_bias),
            _Part(candidate, (cell.back,), cell.back_bias),
        ]

    def others(self, cell: Cell, part: _Part) -> Tensor | int:
        """The offset of the rows that stays as it is."""
        stays = len(part.weights) == 2 and cell.back_bias is not None
        return self.slim.state[cell.back_bias].detach()[part.rows] if stays and cell.back_bias else 0

    def fit(self, pairs: Sequence[tuple[Tensor, Tensor]], part: _Part, stays: Tensor | int) -> None:
        """Fits the rows of a part to (inputs, outputs) of each batch, and writes them."""
        slim, intercept = self.slim, part.bias is not None
        weight = torch.cat([slim.state[key].detach()[part.rows] for key in part.weights], dim=1).double()
        bias = slim.state[part.bias].detach()[part.rows].double() if part.bias else weight.new_zeros(len(weight))
        origin = [value.mean(0, keepdim=True) * intercept for value in pairs[0]]  # about which nothing cancels
        origin[1] = origin[1] + stays
        folds: dict[int, Moments] = {}
        for fold, (x, y) in zip(self.folds, pairs, strict=True):
            if fold not in folds:
                sizes = x.shape[1], y.shape[1]
                folds[fold] = Moments.zeros(1, *sizes, intercept=intercept, device=x.device)
            folds[fold].see((x - origin[0]).unsqueeze(0), (y - origin[1]).unsqueeze(0))
        ox, oy = (value.double().reshape(-1) for value in (origin[0], origin[1] - stays))
        start = (bias - oy + weight @ ox).unsqueeze(0)
        solution = ridge_solution(list(folds.values()), weight.unsqueeze(0), start, self.ridge, self.solve)
        self.solutions.append(solution)
        if math.isfinite(solution.ridge):
            self.write(part, solution.weight[0], solution.bias[0] + oy - solution.weight[0] @ ox)

    def write(self, part: _Part, weight: Tensor, bias: Tensor) -> None:
        columns = weight.split([self.slim.state[key].shape[1] for key in part.weights], dim=1)
        for key, value in zip(part.weights, columns, strict=True):
            self.fill(key, part.rows, value)
        if part.bias is not None:
            self.fill(part.bias, part.rows, bias)

    def fill(self, key: str, rows: slice, value: Tensor) -> None:
        whole = self.slim.state[key].detach().clone()
        whole[rows] = value.to(whole)
        self.slim.write(key, whole)


# --- means --------------------------------------------------------------------------------------------------------


class RecurrentMeans:
    """Means of what recurrent layers of the dense network read, seen in its forward passes.

    Folded in, they are added to biases as what they made of the gates: that of lost inputs to the bias beside their
    weight, that of lost states to the other one.
    """

    def __init__(self, dense: WritableNetwork, slim: WritableNetwork, plan: Plan) -> None:
        self.dense, self.slim, self.plan = dense, slim, plan
        self.layers = []
        for layer in _wanted(dense, plan, slim.notes):
            if layer.cells[0][0].into_bias is not None:
                self.layers.append(layer)
            else:
                slim.notes.append(f"{layer.module} has no bias to take the means of what it reads")
        self.sums: dict[str, Tensor] = {}
        self.rows: Counter[str] = Counter()

    def watch(self) -> dict[CallSite, Callable[[tuple[Any, ...], Any], None]]:
        """What an observer of the dense network is to call, by the sites of calls."""

        def see(layer: RecurrentLayer) -> Callable[[tuple[Any, ...], Any], None]:
            return lambda args, result: self._see(layer, layer.read(args))

        return {layer.site: see(layer) for layer in self.layers}

    def _see(self, layer: RecurrentLayer, inputs: Sequences) -> None:
        for key, values in _entering(self.dense, layer, inputs):
            self.sums[key] = values.sum(0, dtype=torch.float64) + self.sums.get(key, 0)
            self.rows[key] += len(values)

    def fold(self) -> dict[str, bool]:
        """Writes the biases. Returns {key: True} of each weight whose lost columns' mean was added."""
        mended = {}
        for cell in (cell for layer in self.layers for directions in layer.cells for cell in directions):
            for key, bias in ((cell.into, cell.into_bias), (cell.back, cell.back_bias)):
                left = keeps(self.plan, key, 1)
                if left is None or bias is None:
                    continue
                gone = self.sums[key] / self.rows[key]
                gone[torch.as_tensor(left, device=gone.device)] = 0
                offset = self.dense.state[key].detach().double() @ gone
                kept = keeps(self.plan, key, 0)
                offset = offset if kept is None else offset[list(kept)]
                self.slim.write(bias, self.slim.state[bias].detach() + offset)
                mended[key] = True
        return mended


def _entering(network: WritableNetwork, layer: RecurrentLayer, inputs: Sequences) -> list[tuple[str, Tensor]]:
    """What meets each weight of a layer's gates, by its key: shapes (rows, channels)."""
    entering, index = [], 0
    for directions in layer.cells:
        runs = []
        for cell in directions:
            run = run_cell(layer, index, cell, network.state, inputs)
            entering += [(cell.into, run.x), (cell.back, run.before)]
            runs.append(run)
            index += 1
        inputs = entering_next(inputs, runs)
    return entering
