"""The convolutions and linear layers of a forward pass, as they are called."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..ops import Captured, op_name
from ..ops.record import CONVOLUTIONS, OpRecord, in_order, record_of
from ..ops.window import Window

_FOUND = (*CONVOLUTIONS, "linear", "batch norm")


@dataclass(frozen=True)
class Norm:
    """A call of a BatchNorm in evaluation mode: the `call`th of its op, and the keys of what it was given."""

    op: str
    call: int
    place: int
    module: str
    weight: str | None
    bias: str | None
    mean: str
    variance: str
    eps: float

    @property
    def site(self) -> tuple[str, int]:
        return self.op, self.call


@dataclass(frozen=True)
class Call:
    """What a layer of some kind is called with: what enters it, its weight, and where a convolution's windows lie."""

    kind: str
    x: Tensor
    weight: Tensor
    window: Window | None = None


@dataclass(frozen=True)
class Layer:
    """A call of a convolution or a linear layer whose weight is a parameter.

    It is the `call`th of its op, and the `place`th of all calls of a forward pass. `weight` and `bias` are state_dict
    keys. `norm` is the BatchNorm over its outputs that alone reads its result, if there is one. `entering` is the node
    of its input, and `node` that of the call.
    """

    op: str
    call: int
    place: int
    module: str
    weight: str
    bias: str | None
    norm: Norm | None
    entering: fx.Node
    node: fx.Node

    @property
    def site(self) -> tuple[str, int]:
        return self.op, self.call

    @property
    def kind(self) -> str:
        return record_of(self.op).kind

    @property
    def transposed(self) -> bool:
        return self.kind == "transposed convolution"

    @property
    def axis(self) -> int:
        """The axis of the channels, of what enters the layer and of what it makes."""
        return -1 if self.kind == "linear" else 1

    def at(self, role: str) -> int | None:
        """Where the input, the weight or the bias stands among the arguments of the call, from 0."""
        return record_of(self.op).place(self.node.target, role)  # type: ignore[arg-type]

    def entered(self, args: Sequence[Any]) -> Tensor:
        """What enters the layer, of the arguments that a call of it gets."""
        at = self.at("input")
        assert at is not None
        return args[at]

    def read(self, args: Sequence[Any]) -> Call:
        """What the arguments of a call of this layer say."""
        return read(record_of(self.op), self.node.target, args)

    @property
    def recorded_call(self) -> Call:
        """What the layer was called with when it was recorded: tensors without values."""
        args = in_order(self.node.target, self.node.args, self.node.kwargs)
        return self.read([one.meta["val"] if isinstance(one, fx.Node) else one for one in args])

    def without_bias(self, args: Sequence[Any], x: Tensor) -> Tensor:
        """What the layer makes of `x`, less its bias, in float64; the other arguments are those of a call of it."""
        input_at, bias_at = self.at("input"), self.at("bias")
        schema = self.node.target._schema.arguments  # type: ignore[union-attr]
        values: list[Any] = []
        for place, value in enumerate(args):
            if place == input_at:
                values.append(x.double())
            elif place == bias_at:
                optional = isinstance(schema[place].type, torch.OptionalType)
                values.append(None if optional else torch.zeros_like(value, dtype=torch.float64))
            else:
                floating = isinstance(value, Tensor) and value.is_floating_point()
                values.append(value.double() if floating else value)
        return self.node.target(*values)  # type: ignore[operator]


def read(record: OpRecord, target: Any, args: Sequence[Any]) -> Call:
    """What the arguments of a call of a layer's op say."""
    at, weight = record.place(target, "input"), record.place(target, "weight")
    assert at is not None
    assert weight is not None
    return Call(record.kind, args[at], args[weight], record.windows(*args) if record.windows is not None else None)


def find_layers(captured: Captured) -> tuple[list[Layer], list[Norm]]:
    """The layers and the BatchNorms of a forward pass, in the order in which they are called."""
    calls: Counter[str] = Counter()
    entries: dict[fx.Node, tuple[OpRecord, int, int]] = {}
    for place, node in enumerate(ops(captured)):
        name = op_name(node.target)
        record = record_of(name)
        if record.kind in _FOUND:
            entries[node] = (record, calls[name], place)
        calls[name] += 1

    def key(record: OpRecord, node: fx.Node, role: str) -> str | None:
        argument = record.read(node, role)
        return captured.parameters.get(argument.name) if isinstance(argument, fx.Node) else None

    norms: dict[fx.Node, Norm] = {}
    for node, (record, call, place) in entries.items():
        if record.kind == "batch norm":
            weight, bias, mean, variance = (key(record, node, role) for role in ("weight", "bias", "mean", "variance"))
            if mean is not None and variance is not None:
                eps = float(record.read(node, "eps"))
                module = node.meta["module"]
                norms[node] = Norm(record.name, call, place, module, weight, bias, mean, variance, eps)
    layers = []
    for node, (record, call, place) in entries.items():
        if record.kind == "batch norm":
            continue
        weight, entering = key(record, node, "weight"), record.read(node, "input")
        if weight is None or not isinstance(entering, fx.Node):
            continue
        rank, kernel = entering.meta["val"].dim(), record.read(node, "weight").meta["val"].dim()
        if rank < 2 or (record.kind != "linear" and rank != kernel):
            continue  # no batch axis
        users = [user for user in node.users if user in norms and entries[user][0].read(user, "input") is node]
        norm = norms[users[0]] if len(users) == len(node.users) == 1 else None
        if record.kind == "linear" and rank != 2:
            norm = None  # which is over places, not over what the layer makes
        bias = key(record, node, "bias")
        layers.append(Layer(record.name, call, place, node.meta["module"], weight, bias, norm, entering, node))
    return layers, list(norms.values())


def ops(captured: Captured) -> list[fx.Node]:
    """The nodes that are calls of ops, without those that take one result of several."""
    return [node for node in captured.calls if node.target is not operator.getitem]
