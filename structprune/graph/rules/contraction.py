"""Convolutions, linear layers and matrix products: filters make channels, kernels consume them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ops.provenance import Source
from ...ops.record import op, rule
from ...ops.window import window
from .. import constants, rewrites
from ..axes import Axis
from ..flow import Attribute, Flow, Produced, Unsupported
from ..values import Value
from .pointwise import broadcast, pointwise


@op("conv1d", "conv2d", "conv3d", kind="convolution", windows=window, sizes=("groups",), rewrite=rewrites.grouped)
def conv(flow: Flow, x: Value, weight: Value, bias: Value | None = None, *options: Any, **_: Any) -> Value:
    groups = x.shape[_channel_dim(x, weight)] // weight.shape[1]
    return convolve(flow, x, weight, bias, options[3] if len(options) > 3 else groups, counted="conv")


@op(
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    kind="transposed convolution",
    sizes=("groups",),
    rewrite=rewrites.grouped,
)
def conv_transpose(flow: Flow, x: Value, weight: Value, bias: Value | None = None, *options: Any, **_: Any) -> Value:
    groups = int(flow.shape[_channel_dim(x, weight)]) // weight.shape[1]
    groups = options[3] if len(options) > 3 else groups
    return convolve(flow, x, weight, bias, groups, transposed=True, counted="conv")


def _channel_dim(x: Value, weight: Value) -> int:
    return len(x.shape) - len(weight.shape) + 1  # an unbatched input has no batch axis


def convolve(
    flow: Flow,
    x: Value,
    weight: Value,
    bias: Value | None,
    groups: int,
    *,
    transposed: bool = False,
    counted: str = "",
) -> Value:
    """What any convolution does to channels, wherever its windows lie.

    Args:
        flow: what rules write to.
        x: what enters, shape (n, channels, *places) or (channels, *places).
        weight: shape (made, channels / groups, *kernel); of a transposed one (channels, made / groups, *kernel).
        bias: shape (made,), or None.
        groups: how many groups of channels are convolved, each by itself.
        transposed: whether the windows are those of what is made.
        counted: the name under which fvcore counts the op; its own if it counts none.

    Returns:
        What it makes, of the shape that the op has made.
    """
    counted = counted or flow.op
    channel = _channel_dim(x, weight)
    positions = math.prod((x.shape if transposed else flow.shape)[channel + 1 :])
    total = math.prod(x.shape[:channel]) * positions * math.prod(weight.shape)
    flow.freeze(x.axes[channel + 1 :], "convolves along an axis that carries channels")
    in_dim, out_dim = (0, 1) if transposed else (1, 0)
    if weight.key is None:
        flow.freeze(weight.axes[2:], "uses these channels as the places of a kernel")
    if groups == 1:
        flow.contracts((0, x, channel), (1, weight, in_dim))
        entering, leaving = flow.tie(x.axes[channel], weight.axes[in_dim]), weight.axes[out_dim]
        flow.cost(counted, total, *x.axes[:channel], weight.axes[0], weight.axes[1])
        _produces(flow, weight, out_dim, leaving)
        flow.role(weight, in_dim, "consumer")
    else:
        entering, leaving = _conv_grouped(flow, x.axes[channel], weight, groups, transposed, total, counted)
    flow.attribute(weight, "in_channels", entering)
    flow.attribute(weight, "out_channels", leaving)
    if bias is not None:
        flow.tie(leaving, bias.axes[0])
        flow.role(bias, 0, "bias")
    axes = [None if i != channel else leaving for i in range(len(flow.shape))]
    if channel == 1:
        axes[0] = x.axes[0]
    return Value(tuple(flow.shape), tuple(axes))


def _conv_grouped(
    flow: Flow, entering: Axis, weight: Value, groups: int, transposed: bool, total: int, counted: str
) -> tuple[Axis, Axis]:
    """Grouped and depthwise convolutions: what enters and what is made.

    With at least as many blocks as channels in a block, whole blocks are the units: their inputs and outputs go
    together and `groups` shrinks (a depthwise convolution has one channel a block). With fewer, blocks keep the same
    number of channels, each its own choice; where the weight is computed, or the channels are made of several
    factors, the same places in every block.
    """
    outer, inner = weight.axes[0], weight.axes[1]  # one entry a channel, and one a place within a block
    reason = "keeps its groups of channels equally wide"
    if entering is None and outer is not None and not transposed and len(outer) > groups:
        flow.freeze([inner], None)
        flow.balance(np.split(outer, groups), reason)
        flow.cost(counted, total, outer)
        _produces(flow, weight, 0, outer)
        return None, outer
    if entering is None or outer is None:
        flow.cost(counted, total, outer if entering is None and transposed else None)
        flow.freeze([entering, outer], "convolves, in groups, channels that must all stay")
        flow.freeze([inner], None)
        return None, None
    if not transposed:
        fan_in, fan_out = weight.shape[1], weight.shape[0] // groups
    else:
        fan_in, fan_out = weight.shape[0] // groups, weight.shape[1]
    if groups >= max(fan_in, fan_out):
        flow.cost(counted, total, outer)
        flow.freeze([inner], None)
        flow.role(weight, 0, "passed")
        flow.attribute(weight, "groups", entering, fan_in)
        blocks = [_whole(flow, axis, groups) for axis in (entering, outer)]
        flow.follow(groups, flow.tie(*blocks))
        leaving = np.repeat(blocks[0], fan_out, axis=0)
        return (entering, leaving) if transposed else (entering, outer)
    flow.role(weight, 0, "consumer" if transposed else "filter")
    flow.role(weight, 1, "filter" if transposed else "consumer")
    if weight.key is None or entering.shape[1] > 1 or inner is None:
        return _conv_same_places(flow, entering, weight, groups, transposed, total, counted)
    across = flow.units.axis(groups * (fan_out if transposed else fan_in))  # axis 1, a block's choice after another's
    if (weight.key, 1) in flow.blocked:
        flow.tie(across, flow.blocked[weight.key, 1])
    flow.blocked[weight.key, 1] = across
    flow.freeze([inner], None)
    leaving = across if transposed else outer
    flow.tie(entering, outer if transposed else across)
    for axis in (outer, across):
        parts = np.split(axis, groups)
        flow.balance(parts, reason)
    flow.cost(counted, total, outer, across, divisor=groups)
    if transposed:
        flow.produced.append(Produced(flow.depth, weight.key, 1, across))
    else:
        _produces(flow, weight, 0, leaving)
    return entering, leaving


def _whole(flow: Flow, axis: np.ndarray, groups: int) -> np.ndarray:
    """The axis with one position a block, each block's channels made to go together."""
    if len(axis) == groups:
        return axis
    blocks, within = flow.split(axis, (groups, len(axis) // groups))
    flow.freeze([within], None)
    if blocks is None:
        raise Unsupported("convolves, in groups, channels that must all stay")
    return blocks


def _conv_same_places(
    flow: Flow, entering: np.ndarray, weight: Value, groups: int, transposed: bool, total: int, counted: str
) -> tuple[Axis, Axis]:
    if transposed:
        raise Unsupported("grouped transposed convolutions of such channels have no rule")
    blocks, places = flow.split(entering, (groups, len(entering) // groups))
    leaving = weight.axes[0]
    assert leaving is not None
    leaving_blocks, _ = flow.split(leaving, (groups, len(leaving) // groups))
    flow.freeze([blocks, leaving_blocks], None)
    flow.tie(places, weight.axes[1])
    if places is not None and weight.key is None and weight.at(1) != 0.0:
        flow.changing.append(places)
    flow.cost(counted, total, leaving, weight.axes[1])
    _produces(flow, weight, 0, leaving)
    return entering, leaving


def _produces(flow: Flow, weight: Value, dim: int, axis: Axis) -> None:
    owner = flow.owner(weight, dim)
    if axis is not None and owner is not None:
        flow.produced.append(Produced(flow.depth, *owner, axis))
        flow.roles[owner] = "filter"


@op("linear", kind="linear")
def linear(flow: Flow, x: Value, weight: Value, bias: Value | None = None) -> Value:
    flow.cost("linear", math.prod(x.shape) * weight.shape[0], *x.axes[:-1], weight.axes[0], weight.axes[1])
    flow.contracts((0, x, -1), (1, weight, 1))
    flow.tie(x.axes[-1], weight.axes[1])
    _produces(flow, weight, 0, weight.axes[0])
    flow.role(weight, 1, "consumer")
    flow.attribute(weight, "in_features", weight.axes[1])
    flow.attribute(weight, "out_features", weight.axes[0])
    if bias is not None:
        flow.tie(weight.axes[0], bias.axes[0])
        flow.role(bias, 0, "bias")
    return Value(tuple(flow.shape), (*x.axes[:-1], weight.axes[0]))


_SCALED = "takes its scale from this width, which would change"


@op("matmul", "bmm", "mm", kind="product", masked=constants.product)
@op("mv", masked=constants.product)
@rule("dot", "vdot")
def matmul(flow: Flow, a: Value, b: Value) -> Value:
    """Batch axes broadcast and are coupled; the axis that both sides contract is coupled."""
    if flow.module_form and flow.native and len(a.shape) == len(b.shape) == 3:  # in nn.MultiheadAttention
        flow.freeze([a.axes[-1]], _SCALED)
    rank = len(flow.shape)
    axes: list[Axis] = []
    batch = rank - (len(a.shape) > 1) - (len(b.shape) > 1)
    for position in range(-batch, 0):
        present = []
        for x in (a, b):
            at = len(x.shape) - 2 + position
            if len(x.shape) > 2 and at >= 0:
                if x.shape[at] == flow.shape[batch + position]:
                    present.append(x.axes[at])
                else:
                    flow.freeze([x.axes[at]], "spreads one channel over many")
        axes.append(present[0] if len(present) == 1 else flow.tie(*present))
    first = 1 if flow.op in ("addmm", "baddbmm") else 0  # which have their bias before
    flow.contracts((first, a, -1), (first + 1, b, -2 if len(b.shape) > 1 else -1))
    contracted = flow.tie(a.axes[-1], b.axes[-2] if len(b.shape) > 1 else b.axes[-1])
    flow.cost(
        flow.op,
        math.prod(flow.shape) * a.shape[-1],
        *axes,
        *((a.axes[-2],) if len(a.shape) > 1 else ()),
        contracted,
        *((b.axes[-1],) if len(b.shape) > 1 else ()),
    )
    if contracted is not None and flow.module_form:
        flow.attributes.append(Attribute(contracted, source=Source(flow.module, "fused_attn"), flag=False))
    _matrix_roles(flow, a, b)
    if len(a.shape) > 1:
        axes.append(a.axes[-2])
    if len(b.shape) > 1:
        axes.append(b.axes[-1])
    return Value(tuple(flow.shape), tuple(axes))


def _matrix_roles(flow: Flow, a: Value, b: Value) -> None:
    """A parameter in a matrix product contracts one axis and makes channels along the other."""
    for value, consumed, outputs in ((a, -1, -2), (b, -2, -1)):
        rank = len(value.shape)
        if value.key is not None and rank > 1:
            flow.role(value, consumed % rank, "consumer")
            _produces(flow, value, outputs % rank, value.axes[outputs])


@op("addmm", "baddbmm", kind="product")
def addmm(flow: Flow, bias: Value, a: Value, b: Value, **_: Any) -> Value:
    return pointwise(flow, matmul(flow, a, b), bias)


@op("scaled_dot_product_attention", masked=constants.attended, rewrite=rewrites.attention)
def attention(
    flow: Flow, q: Value, k: Value, v: Value, mask: Value | None = None, *_: Any, scale: float | None = None, **__: Any
) -> Value:
    """Scores and their product with the values; fvcore does not count this op."""
    rank = len(q.shape)
    if flow.module_form and scale is None:
        flow.freeze([q.axes[-1], k.axes[-1]], _SCALED)
    flow.contracts((0, q, -1), (1, k, -1))
    width = flow.tie(q.axes[-1], k.axes[-1])
    lead: list[Axis] = []
    for d in range(rank - 2):
        axis = q.axes[d]
        for other in (k, v):
            if other.shape[d] == q.shape[d]:
                axis = flow.tie(axis, other.axes[d])
            else:
                flow.freeze([axis, other.axes[d]], "shares keys among several heads")
                axis = None
        lead.append(axis)
    flow.freeze([q.axes[-2]], "attends along an axis that carries channels")
    flow.tie(k.axes[-2], v.axes[-2])
    if k.axes[-2] is not None:
        flow.freeze([k.axes[-2]], "attends along an axis that carries channels")
    if mask is not None:
        broadcast(flow, mask, (*q.shape[:-1], k.shape[-2]), (*lead, None, None))
    base = math.prod(q.shape[:-1]) * k.shape[-2]
    flow.cost(flow.op, base * q.shape[-1], *lead, width)
    flow.cost(flow.op, base * v.shape[-1], *lead, v.axes[-1])
    return Value(tuple(flow.shape), (*lead, None, v.axes[-1]))


@op("einsum", kind="product", masked=constants.einsum)
def einsum(flow: Flow, equation: str, operands: list[Value], **_: Any) -> Value:
    """Indices of one letter are coupled, whichever of them are summed over."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        raise Unsupported(f"the equation {equation} has repeated or unnamed indices, which have no rule")
    if not arrow:
        result = "".join(sorted(c for c in set(inputs) - {","} if inputs.count(c) == 1))
    for letter in {*inputs} - {*result, ","}:
        where = [
            (i, x, term.index(letter))
            for i, (term, x) in enumerate(zip(terms, operands, strict=True))
            if letter in term
        ]
        flow.contracts(*where)
    axes: dict[str, Axis] = {}
    sizes: dict[str, int] = {}
    for term, x in zip(terms, operands, strict=True):
        for letter, size, axis in zip(term, x.shape, x.axes, strict=True):
            if letter in axes and size != sizes[letter]:
                raise Unsupported("spreads one channel over many")
            axes[letter] = flow.tie(axes[letter], axis) if letter in axes else axis
            sizes[letter] = size
    if len(terms) == 2:
        flow.cost("einsum", math.prod(sizes.values()), *axes.values())
    for term, x in zip(terms, operands, strict=True):
        if x.key is not None:
            for d, letter in enumerate(term):
                shared = any(letter in other for other in terms if other != term)
                if not shared:
                    _produces(flow, x, d, x.axes[d])
                flow.role(x, d, "consumer")
    return Value(tuple(flow.shape), tuple(axes[letter] for letter in result))
