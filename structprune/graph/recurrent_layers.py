"""The recurrent layers of a recorded pass as data: one call is several cells, each a layer in one direction."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..ops import Captured, op_name
from ..ops.record import in_order, place, record_of
from .recorded_calls import CallSite, op_calls

_PACKED = "batch_sizes"  # an argument of the overloads for packed sequences


@dataclass(frozen=True)
class Cell:
    """The state_dict keys of one layer's parameters in one direction.

    Attributes:
        into: of the weight that its inputs meet, shape (gates × units, inputs).
        back: of the weight that its last state meets, shape (gates × units, states).
        into_bias: of the offset of what inputs make, if there is one.
        back_bias: of the offset of what the state makes, if there is one.
        down: of the projection of its units to its state, shape (states, units), if there is one.
        reverse: whether it runs from the last step to the first.
    """

    into: str
    back: str
    into_bias: str | None
    back_bias: str | None
    down: str | None
    reverse: bool

    @property
    def keys(self) -> list[str]:
        """The keys of all its parameters, in the order in which the op takes them."""
        keys = (self.into, self.back, self.into_bias, self.back_bias, self.down)
        return [key for key in keys if key is not None]


@dataclass(frozen=True)
class Sequences:
    """Sequences step by step: the rows of all samples that have a first step, then of those that have a second, …

    Attributes:
        x: shape (rows, channels).
        sizes: how many rows each step has, never more than the step before: whole numbers on the CPU, shape (steps,).
        states: the first state of each cell, shape (cells, samples, width); of an LSTM the inner ones beside it.
    """

    x: Tensor
    sizes: Tensor
    states: tuple[Tensor, ...]


@dataclass(frozen=True)
class RecurrentLayer:
    """A call of an LSTM, a GRU or a plain recurrent layer whose weights are parameters.

    Attributes:
        op: the name of the op that is called.
        overload: the op itself.
        call: how many calls of that op come before.
        place: how many calls of any op come before.
        module: the path of the module that makes the call.
        cells: for each layer its directions.
        steps: how many steps there are to a sample in the recorded pass, in the mean.
    """

    op: str
    overload: torch._ops.OpOverload
    call: int
    place: int
    module: str
    cells: tuple[tuple[Cell, ...], ...]
    steps: int

    @property
    def site(self) -> CallSite:
        return self.op, self.call

    @property
    def weight(self) -> str:
        """The key of the first weight, which stands for the layer."""
        return self.cells[0][0].into

    @property
    def keys(self) -> list[str]:
        """The keys of all parameters."""
        return [key for directions in self.cells for cell in directions for key in cell.keys]

    def read(self, args: Sequence[Any]) -> Sequences:
        """The sequences that a call gets, of its arguments in the op's own order."""
        sizes_place, states_place = place(self.overload, _PACKED), place(self.overload, "hx")
        assert states_place is not None
        x, states = args[0], args[states_place]
        states = (states,) if isinstance(states, Tensor) else tuple(states)
        if sizes_place is not None:
            return Sequences(x, args[sizes_place], states)
        first = place(self.overload, "batch_first")
        x = x.transpose(0, 1) if first is not None and args[first] else x
        return Sequences(x.flatten(0, 1), torch.full((len(x),), x.shape[1], dtype=torch.int64), states)


def find_recurrent_layers(recording: Captured) -> list[RecurrentLayer]:
    """Finds the recurrent layers of a forward pass whose weights are parameters that nothing else reads.

    Args:
        recording: The recorded forward pass.

    Returns:
        The layers, in the order of their calls. Cells that a model calls step by step are none.
    """
    calls: Counter[str] = Counter()
    layers = []
    reads = Counter(
        recording.parameters.get(parent.name) for node in recording.calls for parent in node.all_input_nodes
    )
    for number, node in enumerate(op_calls(recording)):
        name = op_name(node.target)
        if record_of(name).kind == "recurrent":
            values = _arguments(node)
            cells = _cells(recording, values)
            if cells is not None:
                place_of_call = calls[name], number, node.meta["module"]
                layer = RecurrentLayer(name, node.target, *place_of_call, cells, _steps(node, values))  # type: ignore[arg-type]
                if all(reads[key] == 1 for key in layer.keys):
                    layers.append(layer)
        calls[name] += 1
    return layers


def _arguments(node: fx.Node) -> dict[str, Any]:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return dict(zip(names, in_order(node.target, node.args, node.kwargs, len(names)), strict=False))


def _steps(node: fx.Node, values: dict[str, Any]) -> int:
    states = values["hx"] if isinstance(values["hx"], fx.Node) else values["hx"][0]
    x = node.args[0].meta["val"]  # type: ignore[union-attr]
    return -(-math.prod(x.shape[:-1]) // int(states.meta["val"].shape[1]))


def _cells(recording: Captured, values: dict[str, Any]) -> tuple[tuple[Cell, ...], ...] | None:
    parameters = [recording.parameters.get(p.name) if isinstance(p, fx.Node) else None for p in values["params"]]
    if any(key is None for key in parameters):
        return None
    keys = [key for key in parameters if key is not None]
    biased, layers, directions = values["has_biases"], values["num_layers"], 1 + bool(values["bidirectional"])
    each = len(keys) // (layers * directions)
    cells: list[Cell] = []
    for start in range(0, len(keys), each):
        into, back, *more = keys[start : start + each]
        into_bias, back_bias = more[:2] if biased else (None, None)
        down = more[-1] if len(more) > 2 * biased else None
        reverse = directions == 2 and len(cells) % 2 == 1
        cells.append(Cell(into, back, into_bias, back_bias, down, reverse))
    return tuple(tuple(cells[i : i + directions]) for i in range(0, len(cells), directions))
