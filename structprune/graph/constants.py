"""What stands where channels were removed, in the dense network whose removed slices of parameters are zero.

Removing channels equals masking them with zero only if what they become on the way adds nothing to what sums over
them: relu(0) is 0, but sigmoid(0) is a half and elu(0) + 1 is one. So each `Value` says of each axis which number
stands at its removed positions, where a law tells that the op's record names (`OpRecord.masked`): those of moves, sums
and contractions are here, those of `elementwise` run ops on these numbers. An op without a law makes what is not known:
then a contraction is no `exact` one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from ..ops.record import OpRecord, in_order
from .values import Value

Constants = tuple[float | None, ...]


@dataclass(frozen=True)
class Call:
    """A call of an op whose rule has made `result`, number `place` of several: what laws of `OpRecord.masked` get."""

    record: OpRecord
    node: fx.Node
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    result: Value
    place: int

    def read(self, role: str) -> Any:
        """An argument of the op's kind: "weight"."""
        at = self.record.place(self.node.target, role)  # type: ignore[arg-type]
        return None if at is None else in_order(self.node.target, self.args, self.kwargs, at + 1)[at]


Law = Callable[[Call], Constants]


def with_constants(record: OpRecord, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any], values: Any) -> Any:
    """Adds to `values`, which a rule made (a Value or a list), the constants at removed positions of their axes."""
    law = record.masked or _OF_KIND.get(record.kind)
    if law is None:
        return values

    def with_law(one: Value, place: int) -> Value:
        if one.is_fixed or one.key is not None:
            return one
        return dataclasses.replace(one, masked=law(Call(record, node, args, kwargs, one, place)))

    if isinstance(values, list):
        return [with_law(part, i) if isinstance(part, Value) else part for i, part in enumerate(values)]
    return with_law(values, 0)


def plain(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _tensors(args: Sequence[Any]) -> list[Value]:
    tensors = []
    for x in args:
        tensors += [x] if isinstance(x, Value) else _tensors(x) if isinstance(x, (list, tuple)) else []
    return tensors


def moved(call: Call) -> Constants:
    """Each position is one of the tensors' own: by the axis that it came from, else by what all axes agree on."""
    return _moved(_tensors(call.args), call.result)


def _moved(tensors: Sequence[Value], output: Value) -> Constants:
    live = {x.at(d) for x in tensors for d, axis in enumerate(x.axes) if axis is not None}
    common = live.pop() if len(live) == 1 else None
    result = []
    for axis in output.axes:
        own = {x.at(d) for x in tensors for d, a in enumerate(x.axes) if axis is not None and a is axis}
        result.append(own.pop() if len(own) == 1 and len(tensors) == 1 else common)
    return tuple(result)


def first(call: Call) -> Constants:
    """Each position is one of the first tensor's."""
    return _moved(_tensors(call.args[:1]), call.result)


def zeros_stay(call: Call) -> Constants:
    """Sums, means and the like of zeros, along other axes, are zero."""
    return tuple(map(_summed, moved(call)))


def zeros_of_first(call: Call) -> Constants:
    """The same of the first tensor alone."""
    return tuple(map(_summed, first(call)))


def picked(call: Call) -> Constants:
    """The same, with a second result that tells places."""
    return (None,) * len(call.result.axes) if call.place else zeros_stay(call)


def _summed(*values: float | None) -> float | None:
    """What sums of products have in common: a zero factor makes them zero, an infinite one makes them nothing."""
    known = [value for value in values if value is not None]
    if not all(map(math.isfinite, known)):
        return math.nan
    return 0.0 if 0.0 in known else None


def expanded(call: Call) -> Constants:
    """As in the tensor that is expanded, on its own axes."""
    x, output = call.args[0], call.result
    new = len(output.shape) - len(x.shape)
    same = [d >= new and output.axes[d] is x.axes[d - new] for d in range(len(output.shape))]
    return tuple(x.at(d - new) if same[d] else None for d in range(len(output.shape)))


def padded(call: Call) -> Constants:
    """As before where the places that are added hold the same number, or repeat what is there."""
    x, options = call.args[0], call.args[2:]
    if options and isinstance(options[0], str) and options[0] != "constant":
        return repeated(call)
    numbers = [v for v in options if isinstance(v, (int, float))]
    fill = float(numbers[0]) if numbers else 0.0
    return tuple(value if value == fill else None for value in x.masked)


def repeated(call: Call) -> Constants:
    """As before: other places repeat what is there."""
    masked: Constants = call.args[0].masked
    return masked


def convolved(call: Call) -> Constants:
    """Zero where filters and biases are; along another axis where the input is, without a bias."""
    weight = call.read("weight")
    return _convolved(call, [weight.at(0)])


def convolved_transposed(call: Call) -> Constants:
    """The same of transposed convolutions, whose filters are along axis 1: and in several groups along both."""
    x, weight = call.read("input"), call.read("weight")
    channel = len(x.shape) - len(weight.shape) + 1
    in_one_group = weight.shape[0] == x.shape[channel] and weight.shape[1] == call.result.shape[channel]
    return _convolved(call, [weight.at(1)] if in_one_group else [weight.at(1), weight.at(0)])


def _convolved(call: Call, rows: list[float | None]) -> Constants:
    x, weight = call.read("input"), call.read("weight")
    return _affine(call.result, x, len(x.shape) - len(weight.shape) + 1, rows, call.read("bias"))


def _affine(output: Value, x: Value, channel: int, rows: list[float | None], bias: Any) -> Constants:
    """Zero where filters and biases are; along another axis where the input is, without a bias."""
    biased = isinstance(bias, Value)
    filters = [_summed(row) for row in rows]
    finite = not any(row is not None and math.isnan(row) for row in filters)
    unknown = None in filters or (biased and bias.at(0) != 0.0)
    result: list[float | None] = []
    for d in range(len(output.axes)):
        if d == channel % len(output.axes):
            result.append(math.nan if not finite else None if unknown else 0.0)
        else:
            sums = _summed(x.at(d))
            result.append(None if biased and sums == 0.0 else sums)
    return tuple(result)


def linear(call: Call) -> Constants:
    """As a convolution, along the last axis."""
    return _affine(call.result, call.read("input"), -1, [call.read("weight").at(0)], call.read("bias"))


def product(call: Call) -> Constants:
    """Of matrices: zero where either is, on the axes that it brings."""
    a, b = call.args[0], call.args[1]
    rank = len(call.result.shape)
    ends = [(a, -2)] * (len(a.shape) > 1) + [(b, -1)] * (len(b.shape) > 1)
    result: list[float | None] = []
    for d in range(-rank, -len(ends)):
        at = d + len(ends) - 2  # among the axes of either factor
        result.append(_summed(*(x.at(at) for x in (a, b) if len(x.shape) >= -at)))
    return (*result, *(_summed(x.at(dim)) for x, dim in ends))


def einsum(call: Call) -> Constants:
    """Zero where any of the tensors with a letter is."""
    inputs, arrow, result = call.args[0].replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        result = "".join(sorted(c for c in set(inputs) - {","} if inputs.count(c) == 1))
    held: dict[str, list[float | None]] = {}
    for term, x in zip(terms, call.args[1], strict=True):
        for d, letter in enumerate(term):
            held.setdefault(letter, []).append(x.at(d))
    return tuple(_summed(*held[letter]) for letter in result)


def attended(call: Call) -> Constants:
    """Sums of the values, whatever their weights."""
    values: Value = call.args[2]
    rank = len(call.result.axes)
    return tuple(None if d == rank - 2 else _summed(values.at(d)) for d in range(rank))


def normed(call: Call) -> Constants:
    """LayerNorm and RMSNorm: zero weights make zeros; along an axis that is not normed, zeros stay without a bias."""
    x, inner, affine = call.args[0], len(call.args[1]), [a for a in call.args[2:] if isinstance(a, Value)]
    start = len(x.shape) - inner
    result: list[float | None] = []
    for d in range(len(x.shape)):
        sums = _summed(x.at(d))
        if d < start and (len(affine) < 2 or sums != 0.0):
            result.append(sums)
        elif d < start or not affine or any(a.at(d - start) != 0.0 for a in affine):
            result.append(None)
        else:
            result.append(0.0)
    return tuple(result)


def batch_normed(call: Call) -> Constants:
    """Each channel apart: zero by its own weights, or where mean and input are zero."""
    affine, means = _vectors(call.read("weight"), call.read("bias")), _vectors(call.read("mean"))
    return _scaled(call.read("input"), affine, means)


def instance_normed(call: Call) -> Constants:
    """The same, each sample apart too: zero samples stay so where nothing is added to them."""
    affine, means = _vectors(*call.args[1:3]), _vectors(*call.args[3:4])
    return _scaled(call.args[0], affine, means, samples=len(affine) < 2 and not means)


def group_normed(call: Call) -> Constants:
    """Each channel apart where it is a group of its own; else zero by the weights alone."""
    x, affine = call.args[0], _vectors(*call.args[2:4])
    return _scaled(x, affine, [], apart=call.args[1] == x.shape[1], samples=len(affine) < 2)


def _vectors(*arguments: Any) -> list[Value]:
    return [a for a in arguments if isinstance(a, Value)]


def _scaled(
    x: Value, affine: list[Value], means: list[Value], *, apart: bool = True, samples: bool = False
) -> Constants:
    if x.at(1) is not None and not math.isfinite(x.at(1) or 0.0):
        return (None, math.nan, *(None,) * (len(x.axes) - 2))
    if affine:
        channel = all(a.at(0) == 0.0 for a in affine)
    else:
        channel = apart and x.at(1) == 0.0 and all(m.at(0) == 0.0 for m in means)
    return (0.0 if samples and x.at(0) == 0.0 else None, 0.0 if channel else None, *(None,) * (len(x.axes) - 2))


def embedded(call: Call) -> Constants:
    """As in the table, on the last axis."""
    rank = len(call.result.axes)
    return tuple(call.args[0].at(1) if d == rank - 1 else None for d in range(rank))


def gated(call: Call) -> Constants:
    """Zeros stay, whatever they are multiplied by."""
    return tuple(map(_summed, call.args[0].masked))


def filled(number: float) -> Law:
    """With one number everywhere."""
    return lambda call: (number,) * len(call.result.axes)


def filled_by(place: int) -> Law:
    """With the number that is argument `place`."""
    return lambda call: (plain(call.args[place]),) * len(call.result.axes)


_OF_KIND: dict[str, Law] = {
    "convolution": convolved,
    "transposed convolution": convolved_transposed,
    "linear": linear,
    "batch norm": batch_normed,
}
