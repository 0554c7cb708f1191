"""The layers of a recorded pass as data, and the kind of layer of each weight, as runtimes tell them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ..ops import Captured, op_name
from ..ops.record import CONVOLUTIONS, OpRecord, in_order, record_of
from ..ops.window import Window
from .channels import ChannelGraph
from .recorded_calls import CallSite, op_calls

KINDS = ("conv", "depthwise", "linear")
_LAYERS = (*CONVOLUTIONS, "linear", "batch norm")


@dataclass(frozen=True)
class Norm:
    """A call of a BatchNorm in evaluation mode, and the keys of its parameters and statistics.

    It is the `call`th of its op, and the `place`th of all calls of a forward pass.
    """

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
    def site(self) -> CallSite:
        return self.op, self.call


@dataclass(frozen=True)
class LayerCall:
    """What a layer of some kind is called with: its input, its weight, and where a convolution's windows lie."""

    kind: str
    x: Tensor
    weight: Tensor
    window: Window | None = None


@dataclass(frozen=True)
class Layer:
    """A call of a convolution or a linear layer whose weight is a parameter.

    Attributes:
        op: the name of the op that is called.
        overload: the op itself.
        call: how many calls of that op come before.
        place: how many calls of any op come before.
        module: the path of the module that makes the call.
        weight: the state_dict key of the weight.
        bias: that of the bias, if it is a parameter.
        computes_bias: whether there is a bias that is no parameter, but made of some.
        norm: the BatchNorm over its outputs that alone reads its result, if there is one.
        input: the name, in the recorded pass, of what enters the layer.
        recorded_call: what the layer was called with when it was recorded: tensors without values.
    """

    op: str
    overload: torch._ops.OpOverload
    call: int
    place: int
    module: str
    weight: str
    bias: str | None
    norm: Norm | None
    input: str
    recorded_call: LayerCall = field(compare=False, repr=False)
    computes_bias: bool = False

    @property
    def site(self) -> CallSite:
        return self.op, self.call

    @property
    def kind(self) -> str:
        return record_of(self.op).kind

    @property
    def transposed(self) -> bool:
        return self.kind == "transposed convolution"

    @property
    def axis(self) -> int:
        """The axis of the channels, of the layer's input and of its output."""
        return -1 if self.kind == "linear" else 1

    def argument_place(self, role: str) -> int | None:
        """Where the input, the weight or the bias stands among the arguments of the call, from 0."""
        return record_of(self.op).place(self.overload, role)

    def input_of(self, args: Sequence[Any]) -> Tensor:
        """The layer's input, of the arguments that a call of it gets."""
        place = self.argument_place("input")
        assert place is not None
        return args[place]

    def read(self, args: Sequence[Any]) -> LayerCall:
        """What the arguments of a call of this layer say."""
        return _read(record_of(self.op), self.overload, args)

    def without_bias(self, args: Sequence[Any], x: Tensor) -> Tensor:
        """The layer's output for `x`, less its bias, in float64; the other arguments are those of a call of it."""
        input_place, bias_place = self.argument_place("input"), self.argument_place("bias")
        schema = self.overload._schema.arguments
        values: list[Any] = []
        for place, value in enumerate(args):
            if place == input_place:
                values.append(x.double())
            elif place == bias_place:
                optional = isinstance(schema[place].type, torch.OptionalType)
                values.append(None if optional else torch.zeros_like(value, dtype=torch.float64))
            else:
                floating = isinstance(value, Tensor) and value.is_floating_point()
                values.append(value.double() if floating else value)
        return self.overload(*values)


def _read(record: OpRecord, overload: torch._ops.OpOverload, args: Sequence[Any]) -> LayerCall:
    """What the arguments of a call of a layer's op say."""
    x, weight = record.place(overload, "input"), record.place(overload, "weight")
    assert x is not None
    assert weight is not None
    return LayerCall(record.kind, args[x], args[weight], record.windows(*args) if record.windows is not None else None)


def find_layers(recording: Captured) -> tuple[list[Layer], list[Norm]]:
    """Finds the layers and the BatchNorms of a forward pass.

    Args:
        captured: The recorded forward pass.

    Returns:
        The layers with weights and a batch axis, and the BatchNorms that keep statistics, in the order of their calls.
    """
    calls: Counter[str] = Counter()
    entries: dict[fx.Node, tuple[OpRecord, int, int]] = {}
    for place, node in enumerate(op_calls(recording)):
        name = op_name(node.target)
        record = record_of(name)
        if record.kind in _LAYERS:
            entries[node] = (record, calls[name], place)
        calls[name] += 1

    def key(record: OpRecord, node: fx.Node, role: str) -> str | None:
        argument = record.read(node, role)
        return recording.parameters.get(argument.name) if isinstance(argument, fx.Node) else None

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
        weight, source = key(record, node, "weight"), record.read(node, "input")
        if weight is None or not isinstance(source, fx.Node):
            continue
        rank, kernel = source.meta["val"].dim(), record.read(node, "weight").meta["val"].dim()
        if rank < 2 or (record.kind != "linear" and rank != kernel):
            continue  # no batch axis
        users = [user for user in node.users if user in norms and entries[user][0].read(user, "input") is node]
        norm = norms[users[0]] if len(users) == len(node.users) == 1 else None
        if record.kind == "linear" and rank != 2:
            norm = None  # which is over places, not over the layer's output channels
        bias, overload = key(record, node, "bias"), node.target
        recorded = _read(record, overload, _recorded_arguments(node))  # type: ignore[arg-type]
        computed = bias is None and isinstance(record.read(node, "bias"), fx.Node)
        where = (record.name, overload, call, place, node.meta["module"])
        layers.append(Layer(*where, weight, bias, norm, source.name, recorded, computed))  # type: ignore[arg-type]
    return layers, list(norms.values())


def sole_layers(recording: Captured) -> dict[str, Layer]:
    """Finds the layers whose weight and bias nothing else in the forward pass reads.

    Args:
        recording: The recorded forward pass.

    Returns:
        The layers by the keys of their weights.
    """
    layers, _ = find_layers(recording)
    reads = count_reads(recording)
    alone = [layer for layer in layers if reads[layer.weight] == 1 and (not layer.bias or reads[layer.bias] == 1)]
    return {layer.weight: layer for layer in alone}


def count_reads(recording: Captured) -> Counter[str]:
    """How many calls of a forward pass read each parameter and buffer, by its key."""
    keys = (recording.parameters.get(parent.name) for node in recording.calls for parent in node.all_input_nodes)
    return Counter(key for key in keys if key is not None)


def _recorded_arguments(node: fx.Node) -> list[Any]:
    """The arguments of a recorded call in the op's own order, with the meta tensors that it got."""
    args = in_order(node.target, node.args, node.kwargs)
    return [value.meta["val"] if isinstance(value, fx.Node) else value for value in args]


@dataclass(frozen=True)
class LayerKind:
    """One of KINDS, and in how many blocks of its own the channels of such a layer are chosen.

    That is more than one where the blocks of a grouped convolution keep different positions.
    """

    kind: str
    blocks: int = 1


def layer_kinds(graph: ChannelGraph) -> dict[str, LayerKind]:
    """The kind of the layer that uses each weight, by the weight's key; of several the last convolution's."""
    kinds: dict[str, LayerKind] = {}
    for node in graph.recording.calls:
        record = record_of(op_name(node.target))
        for parent in node.all_input_nodes:
            key = graph.recording.parameters.get(parent.name)
            shape = tuple(getattr(parent.meta.get("val"), "shape", ()))
            if key is None or len(shape) < 2:
                continue
            if record.kind in CONVOLUTIONS:
                groups = _groups(record, node)
                kind = "depthwise" if groups > 1 and shape[1] == 1 else "conv"
                kinds[key] = LayerKind(kind, groups if groups > 1 and (key, 1) in graph.blocked else 1)
            elif record.kind in ("linear", "product"):
                kinds.setdefault(key, LayerKind("linear"))
    return kinds


def _groups(record: OpRecord, node: fx.Node) -> int:
    """How many groups of channels a convolution convolves, each by itself; 1 for a transposed one."""
    if record.kind == "transposed convolution":
        return 1
    x, weight = (record.read(node, role).meta["val"] for role in ("input", "weight"))
    return int(x.shape[x.dim() - weight.dim() + 1] // weight.shape[1])
