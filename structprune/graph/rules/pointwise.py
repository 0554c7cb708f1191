"""Ops that leave every position where it is, normalisation by statistics of a channel, and creation."""

from __future__ import annotations

from typing import Any

from ..flow import Flow, Unsupported, Value
from ..units import Axis
from .table import rule

_UNARY = (
    "relu relu6 hardtanh silu sigmoid hardsigmoid hardswish gelu elu selu celu leaky_relu tanh mish softplus "
    "log_sigmoid hardshrink softsign abs neg exp log sqrt rsqrt square reciprocal pow clamp clamp_min clamp_max "
    "dropout feature_dropout alpha_dropout feature_alpha_dropout clone contiguous detach alias _to_copy to type_as "
    "sin cos erf sign floor ceil round lift_fresh_copy zeros_like ones_like"
)


@rule(*_UNARY.split())
def unary(flow: Flow, *arguments: Any, **options: Any) -> Value | list[Value]:
    tensors = [x for x in arguments if isinstance(x, Value)]
    if len(tensors) > 1 or tensors[0].shape != tuple(flow.shape):  # a power or a bound that is a tensor too
        return pointwise(flow, *arguments, **options)
    return Value(tuple(flow.shape), tensors[0].axes)


_BINARY = (
    "add sub rsub mul div maximum minimum where lerp addcmul addcdiv remainder fmod atan2 gt lt ge le eq ne "
    "logical_and logical_or logical_not logical_xor isnan isinf masked_fill"
)


@rule(*_BINARY.split())
def pointwise(flow: Flow, *arguments: Any, **_: Any) -> Value:
    """Broadcasts as ATen does: axes align from the right and those longer than 1 are coupled."""
    tensors = [x for x in arguments if isinstance(x, Value)]
    shape = tuple(flow.shape)
    axes: list[Axis] = []
    for position in range(-len(shape), 0):
        present = [x for x in tensors if len(x.shape) >= -position]
        same = [x.axes[position] for x in present if x.shape[position] == shape[position]]
        for x in present:
            if x.shape[position] != shape[position]:
                flow.tie(x.axes[position], None)  # one channel spread over many has no counterpart to go with
        axis = same[0]
        for other in same[1:]:
            axis = flow.tie(axis, other)
        axes.append(axis)
    for x in tensors:
        for dim in range(len(x.shape)):
            flow.role(x, dim, "other")
    return Value(shape, tuple(axes))


@rule("prelu")
def prelu(flow: Flow, x: Value, slope: Value) -> Value:
    if slope.shape != (1,):
        flow.tie(x.axes[1], slope.axes[0])
        flow.role(slope, 0, "other")
        flow.attribute(slope, "num_parameters", slope.axes[0])
    return Value(tuple(flow.shape), x.axes)


@rule("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def batch_norm(flow: Flow, x: Value, *arguments: Any, **_: Any) -> Value:
    if len(arguments) > 4 and arguments[4] and any(a is not None for d, a in enumerate(x.axes) if d != 1):
        raise Unsupported("takes statistics of this batch over another axis that carries channels")
    for value in arguments[:4]:
        if isinstance(value, Value):
            flow.tie(x.axes[1], value.axes[0])
            flow.role(value, 0, "norm")
            flow.attribute(value, "num_features", value.axes[0])
    return Value(tuple(flow.shape), x.axes)


@rule("zeros", "ones", "full", "empty", "arange", "scalar_tensor", "new_zeros", "new_ones", "new_full", "full_like")
def create(flow: Flow, *_: Any, **__: Any) -> Value:
    return Value.fixed(flow.shape)
