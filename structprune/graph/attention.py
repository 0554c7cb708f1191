"""Attention in a recorded pass: which channels of which layers its products multiply, and where the results go.

The two layers that make queries and keys may be given other weights as long as the logits stay what they are, and so
may the layers that make values and read what attention makes of them. For that the channels of each head have to be
known. They are found by running the recorded ops between a layer and a product on numbers that say where they are
from: whatever only moves them tells, in the end, which channel stands where.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..errors import ModelError
from ..ops import Captured, capture, leaves_of, op_name
from ..ops.record import CONVOLUTIONS, in_order, record_of
from . import constants
from .layers import Layer, find_layers
from .recorded_calls import CallSite, op_calls

_SCALES = ("mul", "multiply", "div", "divide", "true_divide")
_HELD = 4  # layers whose channels are followed at a time
_EQUATION = "einsum multiplies them, in whose place matmul would be followed"
_FURTHEST = 16  # calls between a product and its softmax


class Unfit(Exception):
    """Why the channels of a tensor are not those of one layer, each head's by themselves."""


@dataclass(frozen=True)
class Heads:
    """The channels of a layer that stand along an axis of a tensor of attention.

    Attributes:
        layer: makes the channels, or reads them.
        channels: shape (heads, width): which of the layer's channels the axis holds, for each head.
        pattern: the head of each index of the leading axes, of size 1 along those that do not change it.
    """

    layer: Layer
    channels: np.ndarray
    pattern: np.ndarray

    def of(self, lead: Sequence[int]) -> np.ndarray | None:
        """The head of each index of leading axes of these sizes, flat; None if another batch does not tell it."""
        index = self.pattern
        for axis, (size, known) in enumerate(zip(lead, self.pattern.shape, strict=True)):
            if size % known:
                return None
            index = np.repeat(index, size, axis) if known == 1 else np.concatenate([index] * (size // known), axis)
        return index.ravel()


@dataclass(frozen=True)
class Product:
    """A call that multiplies queries and keys, or weighs values.

    Attributes:
        site: the call.
        module: the path of the module that makes it.
        left: for logits the layer of the queries; for values the layer that reads the result.
        right: for logits the layer of the keys; for values the layer that makes them.
        width: how many channels a head has: those that are summed over for logits, those of its values for values.
        centred: of logits, whether what is the same for all keys does not count, as a softmax over them follows.
        turned: of values, whether the call gives (..., channels, tokens).

    Instead of a layer there may be a reason why there is none to change.
    """

    site: CallSite
    module: str
    left: Heads | str
    right: Heads | str
    width: int
    centred: bool = False
    turned: bool = False

    @property
    def reader(self) -> Heads:
        """Where a layer reads values, if one does."""
        assert isinstance(self.left, Heads)
        return self.left

    def queries_and_keys(self, args: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Reads queries and keys, shapes (..., tokens, channels), from the arguments of the call."""
        if self.site[0] == "scaled_dot_product_attention":
            return args[0], args[1]
        return args[0], args[1].mT

    def attended(self, result: Tensor) -> Tensor:
        """Reads what attention makes of values, shape (..., tokens, channels), from the result of the call."""
        return result.mT if self.turned else result


@dataclass(frozen=True)
class Attention:
    """The products of a recorded pass of which at least one side is a layer's channels."""

    logits: list[Product] = field(default_factory=list)
    values: list[Product] = field(default_factory=list)


def find_attention(recording: Captured, layers: Sequence[Layer]) -> Attention:
    """Finds products of queries and keys, and of attention and values.

    Args:
        recording: The recorded forward pass.
        layers: Its layers, as `find_layers` gives them.

    Returns:
        The products in the order of their calls.
    """
    return _Finder(recording, layers).attention()


def attention_of(model: nn.Module, recording: Captured, layers: Sequence[Layer]) -> Attention:
    """Finds the same as `find_attention`, on two images where the model takes them: each takes memory.

    Args:
        model: The network.
        recording: Its forward pass on any number of images.
        layers: The layers of that.

    Returns:
        The products in the order of their calls.
    """
    inputs = recording.inputs
    images = next((len(x) for x in inputs.flat() if isinstance(x, Tensor) and x.dim()), 0)
    try:
        few = capture(model, inputs.map(lambda x: x[:2] if x.dim() and len(x) == images else x))
    except ModelError:
        return find_attention(recording, layers)
    same, _ = find_layers(few)
    alike = [(layer.site, layer.weight) for layer in same] == [(layer.site, layer.weight) for layer in layers]
    return find_attention(few, same) if alike else find_attention(recording, layers)


class _Finder:
    def __init__(self, recording: Captured, layers: Sequence[Layer]) -> None:
        nodes = op_calls(recording)
        self.recording = recording
        self.layers = {nodes[layer.place]: layer for layer in layers}
        self.uses = Counter(layer.weight for layer in layers)
        self.biases = Counter(layer.bias for layer in layers if layer.bias)
        self.sinks: dict[fx.Node, list[tuple[fx.Node, fx.Node, Tensor]]] = {}

    def attention(self) -> Attention:
        products = Attention()
        calls: Counter[str] = Counter()
        for node in op_calls(self.recording):
            name = op_name(node.target)
            site = (name, calls[name])
            calls[name] += 1
            if name == "scaled_dot_product_attention":
                q, k, v = (node.args[i] for i in range(3))
                products.logits.append(self._logits(site, node, q, k, False))
                products.values.append(self._values(site, node, v, False))
            elif name in ("matmul", "bmm") and all(isinstance(x, fx.Node) for x in node.args[:2]):
                left, right = node.args[:2]
                sides = [self._source(side) in self.layers for side in (left, right)]
                if _softmax_follows(node) or all(sides):
                    products.logits.append(self._logits(site, node, left, right, True))
                elif any(sides):
                    products.values.append(self._values(site, node, left if sides[0] else right, sides[0]))
            elif name == "einsum":
                self._einsum(products, site, node)
        return products

    def _einsum(self, products: Attention, site: CallSite, node: fx.Node) -> None:
        """Takes down a product that is written as an equation, whose sides stay as they are."""
        operands = node.all_input_nodes
        equation = node.args[0]
        if len(operands) != 2 or not isinstance(equation, str) or equation.count(",") != 1 or "." in equation:
            return
        sides = [self._source(side) in self.layers for side in operands]
        terms, _, result = equation.replace(" ", "").partition("->")
        left, right = terms.split(",")
        sizes = {letter: int(size) for term, side in zip((left, right), operands, strict=True)
                 for letter, size in zip(term, side.meta["val"].shape, strict=True)}  # fmt: skip
        if _softmax_follows(node) or all(sides):
            summed = (set(left) & set(right)) - set(result)
            width = math.prod(sizes[letter] for letter in summed)
            products.logits.append(Product(site, node.meta["module"], _EQUATION, _EQUATION, width, centred=True))
        elif any(sides):
            value, other = (left, right) if sides[0] else (right, left)
            width = math.prod(sizes[letter] for letter in (set(value) & set(result)) - set(other))
            products.values.append(Product(site, node.meta["module"], _EQUATION, _EQUATION, width))

    def _logits(self, site: CallSite, node: fx.Node, q: Any, k: Any, turned: bool) -> Product:
        left, right = self._side(node, q, False), self._side(node, k, turned)
        centred = not turned or _softmax_follows(node)
        return Product(site, node.meta["module"], left, right, int(q.meta["val"].shape[-1]), centred)

    def _values(self, site: CallSite, node: fx.Node, v: Any, turned: bool) -> Product:
        value, width = self._side(node, v, turned), int(v.meta["val"].shape[-2 if turned else -1])
        reader: Heads | str = "its values are not one layer's"
        try:
            if isinstance(value, Heads):
                reader = self._reader(node, value, turned)
        except Unfit as reason:
            reader = str(reason)
        return Product(site, node.meta["module"], reader, value, width, turned=turned)

    # --- what makes a side --------------------------------------------------------------------------------------

    def _source(self, node: Any) -> Any:
        """The call that made what was only moved since."""
        while isinstance(node, fx.Node) and node not in self.layers and (before := _moved_from(node)) is not None:
            node = before
        return node

    def _side(self, product: fx.Node, slot: Any, turned: bool) -> Heads | str:
        """The heads of the layer that makes an argument, or why there is none to change."""
        source = self._source(slot)
        if source not in self.layers:
            what = op_name(source.target) if getattr(source, "op", "") == "call_function" else "something else"
            return f"{what} comes between a layer and the product"
        layer = self.layers[source]
        try:
            self._check(source, layer)
            reached = self._reached(source)
            ids = [where for user, argument, where in reached if user is product and argument is slot]
            others = [where for user, argument, where in reached if (user, argument) != (product, slot)]
            if len(ids) != 1:
                raise Unfit("the product reads it twice")
            heads = _heads(layer, source, ids[0].mT if turned else ids[0])
            read = {int(c) for other in others for c in np.unique(_channel(layer, source, other))}
            if read & set(heads.channels.ravel().tolist()):
                raise Unfit("others read the same channels")
        except Unfit as reason:
            return str(reason)
        return heads

    def _check(self, source: fx.Node, layer: Layer) -> None:
        """Raises Unfit for a layer whose rows can't be mixed."""
        record = record_of(layer.op)
        if self.uses[layer.weight] > 1:
            raise Unfit(f"several calls share {layer.weight}")
        if layer.kind in CONVOLUTIONS:
            x, weight = layer.recorded_call.x, layer.recorded_call.weight
            if layer.transposed or x.shape[1] != weight.shape[1]:
                raise Unfit(f"{layer.module} convolves in groups")
        bias = record.read(source, "bias")
        if (bias is not None and layer.bias is None) or self.biases[layer.bias or ""] > 1:
            raise Unfit(f"the bias of {layer.module} is computed, or shared")

    def _reached(self, source: fx.Node) -> list[tuple[fx.Node, fx.Node, Tensor]]:
        """The calls that read what a call makes, moved or as it is: (call, argument, where its numbers are from)."""
        if source not in self.sinks:
            result = source.meta["val"]
            self.sinks = dict(list(self.sinks.items())[-_HELD:])  # what later products do not ask for
            self.sinks[source] = list(_follow(source, torch.arange(result.numel()).reshape(result.shape)))
        return self.sinks[source]

    def _reader(self, product: fx.Node, value: Heads, turned: bool) -> Heads:
        """The channels of the one layer that reads what attention makes of values."""
        reached = self._reached(product)
        if len(reached) != 1 or reached[0][0] not in self.layers:
            names = sorted({op_name(user.target) if user.op == "call_function" else "output" for user, *_ in reached})
            raise Unfit(f"{', '.join(names)} reads what attention makes of its values")
        reader, argument, ids = reached[0]
        layer = self.layers[reader]
        self._check(reader, layer)
        if argument is not record_of(layer.op).read(reader, "input"):
            raise Unfit("it is a layer's weight")
        shape = product.meta["val"].shape
        lead = value.of(shape[:-2])
        if lead is None:
            raise Unfit("its heads are spread in an unknown way")
        rows = ids.movedim(layer.axis, -1).reshape(-1, ids.shape[layer.axis]).numpy()
        index, row, column = np.unravel_index(rows, (len(lead), *shape[-2:]))
        token, unit = (column, row) if turned else (row, column)
        width, place, head = shape[-2 if turned else -1], index * rows.size + token, lead[index]
        if (head != head[:1]).any() or (unit != unit[:1]).any():
            raise Unfit("its channels are spread over places")
        channels = np.full((len(value.channels), width), -1)
        channels[head[0], unit[0]] = np.arange(rows.shape[1])
        if (channels < 0).any() or channels.size != rows.shape[1]:
            raise Unfit("it takes other channels along")
        if (place[:, channels] != place[:, channels[:, :1]]).any():
            raise Unfit("its channels are of several places")
        return Heads(layer, channels, value.pattern)


def _moved_from(node: fx.Node) -> fx.Node | None:
    """What a call moves, or multiplies by a number; None if it does anything else."""
    if node.op != "call_function":
        return None
    sources = node.all_input_nodes
    if len(sources) != 1:
        return None
    if node.target is operator.getitem:
        return sources[0]
    name = op_name(node.target)
    record = record_of(name)
    scaled = name in _SCALES and node.args[0] is sources[0]
    return sources[0] if scaled or record.effect == "same" or record.masked in _MOVES else None


_MOVES = (constants.moved, constants.expanded)


def _follow(source: fx.Node, ids: Tensor) -> Iterator[tuple[fx.Node, fx.Node, Tensor]]:
    values: dict[fx.Node, Any] = {source: ids}
    waiting = [source]
    while waiting:
        node = waiting.pop()
        for user in node.users:
            if _moved_from(user) is None:
                for place in leaves_of(values[node]):
                    yield user, node, place
            elif user not in values:
                values[user] = _moved(user, values[node])
                waiting.append(user)


def _moved(node: fx.Node, value: Any) -> Any:
    if node.target is operator.getitem:
        return value[node.args[1]]
    if op_name(node.target) in (*_SCALES, "dropout"):
        return value
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda _: value)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _channel(layer: Layer, source: fx.Node, ids: Tensor) -> np.ndarray:
    """The layer's channel that each number is from."""
    shape = source.meta["val"].shape
    axis = layer.axis % len(shape)
    return (ids // int(np.prod(shape[axis + 1 :])) % shape[axis]).numpy()


def _heads(layer: Layer, source: fx.Node, ids: Tensor) -> Heads:
    """The channels along the last axis of `ids`, shape (..., tokens, channels), for each index of the leading axes."""
    shape = source.meta["val"].shape
    inner = int(np.prod(shape[layer.axis % len(shape) + 1 :]))
    channel = _channel(layer, source, ids)
    token = ids.numpy() - channel * inner
    if (channel != channel[..., :1, :]).any() or (token != token[..., :1]).any():
        raise Unfit("the product is not over channels")
    rows = channel[..., 0, :]
    channels, head = np.unique(rows.reshape(-1, rows.shape[-1]), axis=0, return_inverse=True)
    if len(np.unique(channels)) != channels.size:
        raise Unfit("heads share channels")
    return Heads(layer, channels, _pattern(head.reshape(rows.shape[:-1])))


def _pattern(head: np.ndarray) -> np.ndarray:
    """One period of the heads along each leading axis."""
    for axis, size in enumerate(head.shape):
        for period in range(1, size + 1):
            part = head.take(range(period), axis)
            if size % period == 0 and (np.concatenate([part] * (size // period), axis) == head).all():
                head = part
                break
    return head


def _softmax_follows(node: fx.Node) -> bool:
    """Whether a softmax over the last axis reads what a call makes, however it is scaled and added to before."""
    waiting, visited = [node], {node}
    while waiting and len(visited) < _FURTHEST:
        for user in waiting.pop().users:
            if user.op != "call_function" or user in visited:
                continue
            if op_name(user.target) in ("softmax", "_softmax"):
                return bool(in_order(user.target, user.args, user.kwargs)[1] in (-1, user.meta["val"].dim() - 1))
            if record_of(op_name(user.target)).kind == "" and user.meta.get("val") is not None:
                visited.add(user)
                waiting.append(user)
    return False
