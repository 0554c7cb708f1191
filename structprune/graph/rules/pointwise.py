"""Ops that leave every position where it is, and creation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ops.record import op, rule
from .. import constants, elementwise, rewrites
from ..axes import Axis
from ..flow import Flow
from ..values import Value

_ACTIVATIONS = (
    "relu relu6 hardtanh silu sigmoid tanh gelu elu selu celu leaky_relu hardswish hardsigmoid mish softplus clamp "
    "clamp_min clamp_max abs"
)
_UNARY = (
    "log_sigmoid hardshrink softshrink softsign absolute neg negative exp exp2 expm1 log log2 log10 log1p sqrt "
    "rsqrt square reciprocal pow float_power clip _to_copy sin cos tan sinh cosh sinc asin acos atan arctan asinh "
    "acosh atanh erf erfc special_erf special_erfc special_expit logit lgamma digamma sign sgn signbit floor ceil "
    "round trunc fix frac deg2rad rad2deg lift_fresh_copy nan_to_num threshold fill positive _conj resolve_conj "
    "resolve_neg bitwise_not float half bfloat16 double int long bool zero data cpu cuda real imag angle"
)


@op(*_ACTIVATIONS.split(), masked=elementwise.applied, effect="activation")
@op(*_UNARY.split(), masked=elementwise.applied)
@op("clone", "contiguous", "alias", masked=elementwise.applied, effect="same")
@op("detach", masked=elementwise.applied, effect="same", rewrite=rewrites.detached)
@op("lift", "lift_fresh", masked=elementwise.applied, rewrite=rewrites.fresh)
@op("dropout", masked=elementwise.zero_alone, effect="same", rewrite=rewrites.trains("train"))
@op("feature_dropout", masked=elementwise.zero_alone, rewrite=rewrites.trains("train"))
@op("alpha_dropout", "feature_alpha_dropout", rewrite=rewrites.trains("train"))
@op("bernoulli", "rrelu", "rrelu_with_noise", masked=elementwise.zero_alone)
def unary(flow: Flow, *arguments: Any, **options: Any) -> Value | list[Value]:
    tensors = [x for x in arguments if isinstance(x, Value)]
    if len(tensors) > 1 or tensors[0].shape != tuple(flow.shape):  # a power or a bound that is a tensor too
        return pointwise(flow, *arguments, **options)
    return Value(tuple(flow.shape), tensors[0].axes)


@op("to", "type_as", masked=constants.first)
@op("zeros_like", masked=constants.filled(0.0))
@op("ones_like", masked=constants.filled(1.0))
@op("full_like", masked=constants.filled_by(1))
@rule("empty_like", "rand_like", "randn_like", "randint_like")
def like(flow: Flow, x: Value, *_: Any, **__: Any) -> Value:
    """As the first tensor is; a second one gives its type only."""
    uniform = flow.op in ("zeros_like", "ones_like", "full_like") or (flow.op in ("to", "type_as") and x.uniform)
    return Value(tuple(flow.shape), x.axes, uniform=uniform and not flow.written)


_BINARY = (
    "sub rsub floor_divide subtract maximum minimum lerp addcmul addcdiv remainder fmod atan2 gt lt ge le eq ne "
    "greater less greater_equal less_equal not_equal logical_and logical_or logical_not logical_xor isnan isinf "
    "isfinite bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__ __iand__ __ior__ __ixor__ hypot xlogy "
    "special_xlogy logaddexp logaddexp2 copysign heaviside complex polar rand randn"
)


@op(*_BINARY.split(), masked=elementwise.applied)
@op("add", masked=elementwise.applied, effect="sum")
@op("mul", "multiply", masked=elementwise.multiplied)
@op("div", "divide", "true_divide", masked=elementwise.divided)
@op("where", masked=elementwise.chosen)
@op("masked_fill", masked=elementwise.filled_where)
@op("copy", masked=elementwise.copied)
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
        axis = same[0] if same else None
        for other in same[1:]:
            axis = flow.tie(axis, other)
        axes.append(axis)
    for x in tensors:
        for dim in range(len(x.shape)):
            if x.key is not None and x.shape[dim] > 1:
                flow.role(x, dim, "other")
    return Value(shape, tuple(axes))


def broadcast(flow: Flow, x: Value, shape: Sequence[int], axes: Sequence[Axis]) -> None:
    """Couples `x` with a tensor of `shape` and `axes` that it broadcasts to."""
    for position in range(-len(x.shape), 0):
        if x.shape[position] == shape[position] and shape[position] > 1:
            flow.tie(x.axes[position], axes[position])
        else:
            flow.freeze([x.axes[position]], "spreads one channel over many")


@op("prelu", "_prelu_kernel", masked=constants.gated)
def prelu(flow: Flow, x: Value, slope: Value) -> Value:
    if slope.shape != (1,):
        flow.tie(x.axes[1], slope.axes[0])
        flow.role(slope, 0, "other")
        flow.attribute(slope, "num_parameters", slope.axes[0])
    return Value(tuple(flow.shape), x.axes)


@op("empty_strided", trusts=True)
@rule("arange", "scalar_tensor", "linspace", "eye", "tensor", "range")
def create(flow: Flow, *_: Any, **__: Any) -> Value:
    return Value.fixed(flow.shape)


@op("zeros", sizes=("size",), spreads=True, masked=constants.filled(0.0), rewrite=rewrites.created)
@op("ones", sizes=("size",), spreads=True, masked=constants.filled(1.0), rewrite=rewrites.created)
@op("full", sizes=("size",), spreads=True, masked=constants.filled_by(1), rewrite=rewrites.created)
@op("empty", sizes=("size",), spreads=True, rewrite=rewrites.created)
def constant(flow: Flow, numbers: Any, *_: Any, **__: Any) -> Value:
    """One number everywhere: of any axis, any position can go, if what it meets goes."""
    sizes = numbers if isinstance(numbers, (list, tuple)) and len(numbers) == len(flow.shape) else flow.shape
    axes = tuple(flow.spread(number, size) for number, size in zip(sizes, flow.shape, strict=True))
    return Value(tuple(flow.shape), axes, uniform=flow.op not in ("empty", "new_empty") and not flow.written)


@op("new_zeros", sizes=("size",), spreads=True, masked=constants.filled(0.0), rewrite=rewrites.new)
@op("new_ones", sizes=("size",), spreads=True, masked=constants.filled(1.0), rewrite=rewrites.new)
@op("new_full", sizes=("size",), spreads=True, masked=constants.filled_by(2), rewrite=rewrites.new)
@op("new_empty", sizes=("size",), spreads=True, rewrite=rewrites.new)
def new_constant(flow: Flow, like: Value, numbers: Any, *_: Any, **__: Any) -> Value:
    """The same, of the first tensor's kind."""
    return constant(flow, numbers)
