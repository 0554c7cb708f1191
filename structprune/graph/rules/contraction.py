"""Convolutions, linear layers and matrix products: filters make channels, kernels consume them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..flow import Flow, Produced, Unsupported, Value
from ..units import Axis
from .table import rule


@rule("conv1d", "conv2d", "conv3d")
def conv(flow: Flow, x: Value, weight: Value, bias: Value | None = None, *_: Any, **__: Any) -> Value:
    groups = _groups(x, weight)
    return _conv(flow, x, weight, bias, groups, transposed=False)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(flow: Flow, x: Value, weight: Value, bias: Value | None = None, *_: Any, **__: Any) -> Value:
    groups = _groups_transposed(flow, weight)
    return _conv(flow, x, weight, bias, groups, transposed=True)


def _groups(x: Value, weight: Value) -> int:
    return x.shape[_channel_dim(x, weight)] // weight.shape[1]


def _groups_transposed(flow: Flow, weight: Value) -> int:
    return int(flow.shape[len(flow.shape) - len(weight.shape) + 1]) // weight.shape[1]


def _channel_dim(x: Value, weight: Value) -> int:
    return len(x.shape) - len(weight.shape) + 1  # an unbatched input has no batch axis


def _conv(flow: Flow, x: Value, weight: Value, bias: Value | None, groups: int, transposed: bool) -> Value:
    _cost_conv(flow, x, weight, transposed)
    if any(axis is not None for axis in x.axes[_channel_dim(x, weight) + 1 :]):
        raise Unsupported("convolves along an axis that carries channels")
    if weight.key is None and not weight.is_fixed:
        raise Unsupported("its weight is computed from parameters, which surgery cannot slice yet")
    channel = _channel_dim(x, weight)
    entering = x.axes[channel]
    in_dim, out_dim = (0, 1) if transposed else (1, 0)
    w_in, w_out = weight.axes[in_dim], weight.axes[out_dim]
    if weight.is_fixed:
        raise Unsupported("its weight is not a parameter of the model")
    made: Axis
    if groups == 1:
        flow.tie(entering, w_in)
        made = w_out
        _produces(flow, weight, out_dim)
        flow.role(weight, in_dim, "consumer")
        flow.attribute(weight, "in_channels", w_in)
        flow.attribute(weight, "out_channels", w_out)
    else:
        made = _conv_grouped(flow, entering, weight, groups, transposed)
    if bias is not None:
        flow.tie(made, bias.axes[0])
        flow.role(bias, 0, "bias")
    axes = [None if i != channel else made for i in range(len(flow.shape))]
    if channel == 1:
        axes[0] = x.axes[0]
    return Value(tuple(flow.shape), tuple(axes))


def _conv_grouped(flow: Flow, entering: Axis, weight: Value, groups: int, transposed: bool) -> Axis:
    """Grouped and depthwise convolutions.

    With at least as many blocks as channels in a block, whole blocks are the units: their inputs and outputs
    go together and `groups` shrinks (a depthwise convolution is the case of one channel a block). With fewer,
    the units are the places within a block, the same in every block, so that blocks stay of equal size.
    """
    if transposed and weight.shape[1] > 1:
        raise Unsupported("grouped transposed convolutions with several outputs a group have no rule yet")
    if entering is None:
        raise Unsupported("convolves, in groups, channels that must all stay")
    if transposed:
        outputs_ = weight.axes[0]
        assert outputs_ is not None
        flow.tie(entering, outputs_)
        flow.role(weight, 0, "passed")
        for name in ("in_channels", "out_channels", "groups"):
            flow.attribute(weight, name, outputs_)
        if weight.shape[0] != groups:
            raise Unsupported("grouped transposed convolutions with several inputs a group have no rule yet")
        return outputs_
    made, within = weight.axes[0], weight.axes[1]
    assert made is not None
    assert within is not None
    fan_in, fan_out = len(entering) // groups, len(made) // groups
    factors = entering.shape[1]
    if factors != 1:
        raise Unsupported("convolves, in groups, channels made of several factors")
    inputs_, outputs_ = entering.reshape(groups, fan_in), made.reshape(groups, fan_out)
    if (inputs_ < 0).any():
        raise Unsupported("convolves, in groups, channels of which some must stay")
    if groups >= max(fan_in, fan_out):
        block = inputs_[:, :1]
        flow.units.tie(np.broadcast_to(block, inputs_.shape), inputs_)
        flow.units.tie(np.broadcast_to(block, outputs_.shape), outputs_)
        flow.role(weight, 0, "passed")
        flow.attribute(weight, "groups", entering, fan_in)
    else:
        flow.units.tie(np.broadcast_to(inputs_[:1], inputs_.shape), inputs_)
        flow.units.tie(inputs_[0], within)
        flow.units.tie(np.broadcast_to(outputs_[:1], outputs_.shape), outputs_)
        _produces(flow, weight, 0)
        flow.role(weight, 1, "consumer")
    flow.attribute(weight, "in_channels", entering)
    flow.attribute(weight, "out_channels", made)
    return made


def _cost_conv(flow: Flow, x: Value, weight: Value, transposed: bool) -> None:
    positions = math.prod((x.shape if transposed else flow.shape)[_channel_dim(x, weight) + 1 :])
    batch = x.shape[0] if _channel_dim(x, weight) == 1 else 1
    flow.cost("conv", batch * positions * math.prod(weight.shape), weight.axes[0], weight.axes[1])


def _produces(flow: Flow, weight: Value, dim: int) -> None:
    axis = weight.axes[dim]
    if axis is not None and weight.key is not None:
        flow.produced.append(Produced(flow.depth, weight.key, dim, axis))
        flow.role(weight, dim, "filter")


@rule("linear")
def linear(flow: Flow, x: Value, weight: Value, bias: Value | None = None) -> Value:
    flow.cost("linear", math.prod(x.shape) * weight.shape[0], weight.axes[0], weight.axes[1])
    if weight.key is None:
        raise Unsupported("its weight is computed, which surgery cannot slice yet")
    flow.tie(x.axes[-1], weight.axes[1])
    _produces(flow, weight, 0)
    flow.role(weight, 1, "consumer")
    flow.attribute(weight, "in_features", weight.axes[1])
    flow.attribute(weight, "out_features", weight.axes[0])
    if bias is not None:
        flow.tie(weight.axes[0], bias.axes[0])
        flow.role(bias, 0, "bias")
    return Value(tuple(flow.shape), (*x.axes[:-1], weight.axes[0]))


@rule("matmul", "bmm", "mm")
def matmul(flow: Flow, a: Value, b: Value) -> Value:
    flow.cost(flow.op, math.prod(flow.shape) * a.shape[-1])
    return _all_fixed(flow, a, b)


@rule("addmm", "baddbmm")
def addmm(flow: Flow, bias: Value, a: Value, b: Value, **_: Any) -> Value:
    flow.cost(flow.op, math.prod(flow.shape) * a.shape[-1])
    return _all_fixed(flow, bias, a, b)


@rule("scaled_dot_product_attention")
def attention(flow: Flow, q: Value, k: Value, v: Value, *_: Any, **__: Any) -> Value:
    """Scores and their product with the values; fvcore does not count this op."""
    flow.cost(flow.op, math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1]))
    return _all_fixed(flow, q, k, v)


@rule("einsum")
def einsum(flow: Flow, equation: str, operands: list[Value], **_: Any) -> Value:
    """Two operands: a multiply-add for each value of the indices taken together."""
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if len(terms) == 2 and "." not in equation:
        sizes = {
            letter: n for term, x in zip(terms, operands, strict=True) for letter, n in zip(term, x.shape, strict=True)
        }
        flow.cost("einsum", math.prod(sizes.values()))
    return _all_fixed(flow, *operands)


def _all_fixed(flow: Flow, *values: Value) -> Value:
    if not all(value.is_fixed for value in values):
        raise Unsupported("multiplies matrices that carry channels; it has a cost but no rule yet")
    return Value.fixed(flow.shape)
