"""Recurrent layers: one unit is a row of each gate, a column of the recurrent weight, and what is made of it.

Every layer and direction of one `nn.LSTM`, `nn.GRU` or `nn.RNN` has as many units as any other, as `hidden_size` is one
number, but which of them stay is each one's own choice. Their last states are stacked along the first axis, so each
entry of that axis carries other units: a `Stacked`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ops.record import op, rule
from .. import rewrites
from ..axes import Axis, concatenate
from ..flow import Flow, Unsupported
from ..values import Stacked, Value
from .contraction import _produces

_GATES = {
    **{"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1},
    **{"lstm_cell": 4, "gru_cell": 3, "rnn_tanh_cell": 1, "rnn_relu_cell": 1},
}
_BALANCED = "has one width for all its layers and directions"


@op("lstm", "gru", "rnn_tanh", "rnn_relu", kind="recurrent", rewrite=rewrites.trains("train"))
def recurrent(flow: Flow, x: Value, *arguments: Any) -> list[Value]:
    """Of a sequence, or of packed ones, whose rows are the steps of all of them."""
    packed = isinstance(arguments[2], (list, tuple))
    states, weights, has_biases, layers, _, _, bidirectional, *rest = arguments[1:] if packed else arguments
    states = list(states) if flow.op == "lstm" else [states]
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    if each * layers * directions != len(weights) or each - 2 * has_biases not in (2, 3):
        raise Unsupported(f"has {len(weights)} weights for {layers} layers in {directions} directions")
    time, batch = (0, None) if packed else (1, 0) if rest[0] else (0, 1)
    flow.freeze([x.axes[time]], "runs along an axis that carries channels")
    steps = int(np.prod(x.shape[:-1]))
    entering, outputs, cells = x.axes[-1], [], []
    for layer in range(layers):
        outgoing: list[Axis] = []
        for direction in range(directions):
            at = (layer * directions + direction) * each
            cell = weights[at : at + each]
            out, inner = _cell(flow, steps, entering, cell, has_biases, first=layer == 0)
            outgoing.append(out)
            outputs.append(out)
            cells.append(inner)
        size = weights[(layer * directions) * each + 1].shape[1]
        entering = concatenate(outgoing, [size] * directions)
    projected = each - 2 * has_biases == 3
    if len(outputs) > 1:
        flow.balance(outputs, _BALANCED)
        if projected:
            flow.balance(cells, _BALANCED)
    samples = None if batch is None else x.axes[batch]
    for state, axes in zip(states, (outputs, cells), strict=False):
        samples = _begin(flow, state, samples, axes)
    axes = [samples if d == batch else None for d in range(len(x.shape) - 1)]
    result: list[Value] = [Value(tuple(flow.shape[0]), (*axes, entering))]
    for shape, ends in zip(flow.shape[1:], (outputs, cells), strict=False):
        result.append(Stacked.of([Value(tuple(shape[1:]), (samples, axis)) for axis in ends]))
    return result


def _cell(
    flow: Flow, steps: int, entering: Axis, weights: Sequence[Value], has_biases: bool, first: bool
) -> tuple[Axis, Axis]:
    """One layer in one direction: what it hands on, and its inner state; the same but where it is projected."""
    into, back = weights[:2]
    gates = _GATES[flow.op]
    flow.tie(entering, into.axes[1])
    rows = flow.tie(into.axes[0], back.axes[0])
    for bias in weights[2:4] if has_biases else ():
        rows = flow.tie(rows, bias.axes[0])
        flow.role(bias, 0, "bias")
    units: Axis = None
    if rows is not None:
        units, *others = np.split(rows, gates)
        for other in others:
            units = flow.tie(units, other)
    _produces(flow, into, 0, rows)
    flow.role(into, 1, "consumer")
    flow.role(back, 0, "filter")
    flow.role(back, 1, "consumer")
    flow.cost(flow.op, steps * into.shape[0] * into.shape[1], into.axes[0], into.axes[1])
    flow.cost(flow.op, steps * back.shape[0] * back.shape[1], back.axes[0], back.axes[1])
    flow.attribute(into, "hidden_size", units)
    if first:
        flow.attribute(into, "input_size", into.axes[1])
    if len(weights) - 2 * has_biases == 2:
        flow.tie(units, back.axes[1])
        return units, units
    return _project(flow, steps, units, back, weights[-1]), units


def _project(flow: Flow, steps: int, units: Axis, back: Value, down: Value) -> Axis:
    """The narrower state that an LSTM with `proj_size` hands on. PyTorch tells by the widths that there is one."""
    flow.tie(units, down.axes[1])
    narrow = flow.tie(down.axes[0], back.axes[1])
    _produces(flow, down, 0, narrow)
    flow.role(down, 1, "consumer")
    flow.attribute(down, "proj_size", narrow)
    flow.cost(flow.op, steps * down.shape[0] * down.shape[1], down.axes[0], down.axes[1])
    if units is not None:
        flow.floors.append((units, down.shape[0] + 1))
    return narrow


def _begin(flow: Flow, state: Value, samples: Axis, axes: list[Axis]) -> Axis:
    """Couples the first states, shape (layers and directions, batch, units), with the units; the batch's axis."""
    parts: Sequence[Value] = state.parts if isinstance(state, Stacked) else ()
    if not parts:
        flow.freeze([state.axes[0]], "holds the state of each layer")
        # where all entries are one number, it does not matter which of them go, only how many
        alike = 1 if state.uniform else len(axes)
        parts = [Value(state.shape[1:], state.axes[1:])] * alike
    for part, axis in zip(parts, axes, strict=False):
        samples = flow.tie(samples, part.axes[0])
        flow.tie(axis, part.axes[1])
    return samples


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(flow: Flow, x: Value, state: Any, *weights: Value | None) -> Value | list[Value]:
    """One step of one layer: shapes (batch, inputs) and (batch, units)."""
    present = [w for w in weights if w is not None]
    states = list(state) if flow.op == "lstm_cell" else [state]
    units, _ = _cell(flow, x.shape[0], x.axes[-1], present, len(present) > 2, first=True)
    samples = x.axes[0]
    for value in states:
        samples = flow.tie(samples, value.axes[0])
        flow.tie(units, value.axes[-1])
    if flow.op == "lstm_cell":
        return [Value(tuple(shape), (samples, units)) for shape in flow.shape]
    return Value(tuple(flow.shape), (samples, units))


@rule("_pack_padded_sequence")
def pack(flow: Flow, x: Value, lengths: Value, *_: Any) -> list[Value]:
    """(batch, time, channels) to (rows, channels) and the number of samples at each step."""
    flow.freeze(x.axes[:2], "packs an axis that carries channels")
    flow.freeze(lengths.axes, None)
    return [Value(tuple(flow.shape[0]), (None, *x.axes[2:])), Value.fixed(flow.shape[1])]


@rule("_pad_packed_sequence")
def unpack(flow: Flow, x: Value, sizes: Value, *_: Any) -> list[Value]:
    """(rows, channels) back to (batch, time, channels), and how long each sample is."""
    flow.freeze([x.axes[0], *sizes.axes], "packs an axis that carries channels")
    return [Value(tuple(flow.shape[0]), (None, None, *x.axes[1:])), Value.fixed(flow.shape[1])]


# --- stacked states -----------------------------------------------------------------------------------------------


_SAME = frozenset(["contiguous", "clone", "detach", "alias", "to", "_to_copy", "relu", "tanh", "sigmoid", "dropout"])


def of_stacked(flow: Flow, arguments: Sequence[Any]) -> Any:
    """What ops that take states apart layer by layer make of them; None for any other op."""
    x = arguments[0] if arguments else None
    if not isinstance(x, Stacked):
        return None
    if flow.op == "index_select" and arguments[1] == 1 and x.axes[1] is None:  # samples in another order
        return Stacked.of([Value(tuple(flow.shape[1:]), part.axes) for part in x.parts])
    if any(isinstance(a, Value) for a in arguments[1:]):
        return None
    if flow.op in _SAME and tuple(flow.shape) == x.shape:
        return x
    dim = arguments[1] if len(arguments) > 1 and flow.op in ("select", "slice", "unbind") else 0
    if dim not in (0, -len(x.shape)):
        return None
    if flow.op == "select":
        return x.parts[arguments[2]]
    if flow.op == "unbind":
        return list(x.parts)
    if flow.op == "slice":
        return Stacked.of(list(x.parts[slice(*arguments[2:])]))
    if flow.op in ("chunk", "split", "split_with_sizes") and len(arguments) < 3:
        ends = list(itertools.accumulate((shape[0] for shape in flow.shape), initial=0))
        return [Stacked.of(list(x.parts[a:b])) for a, b in itertools.pairwise(ends)]
    return None
