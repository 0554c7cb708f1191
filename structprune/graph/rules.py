"""What each ATen op does to channels: one table of small rules, and no default.

A rule gets the op's arguments, each tensor as a `Value`, and returns the `Value` (or list of them) that the
op makes. It may `tie` axes, or raise `Unsupported`: then the node is a barrier, and every channel that
enters it stays. An op that is not in the table is a barrier too, so nothing is ever guessed.

Ops are named as in the ATen schema, without overload and without the `_` of the in-place form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .units import Axis, Units, concatenate, merge


class Unsupported(Exception):
    """This use of an op is not understood; the message is the reason in the report."""


@dataclass(frozen=True)
class Value:
    """A tensor in the graph: its shape, what its axes carry, and the state_dict key if it is a parameter."""

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    key: str | None = None

    @staticmethod
    def fixed(shape: Sequence[int]) -> Value:
        return Value(tuple(shape), (None,) * len(shape))

    @property
    def is_fixed(self) -> bool:
        return all(axis is None for axis in self.axes)


def all_axes(value: Any) -> list[Axis]:
    return [axis for part in value for axis in all_axes(part)] if isinstance(value, list) else list(value.axes)


FIXED = -1  # the cause of a freeze that is no barrier: the model's outputs keep their channels


@dataclass(frozen=True)
class Cause:
    """Why channels stay, and the node where they had to."""

    op: str
    node: str
    module: str
    reason: str


@dataclass
class Produced:
    """The channels that a layer makes: `depth` is the longest path from an input to the layer, in nodes."""

    depth: int
    key: str
    dim: int
    axis: np.ndarray


@dataclass
class Attribute:
    """An attribute of a module that must follow a width: its new value is alive positions // divisor."""

    module: str
    name: str
    axis: np.ndarray
    divisor: int = 1


@dataclass
class Cost:
    """Multiply-adds of one node: `constant` times the number of positions left on each of `axes`.

    `op` is the name under which fvcore counts the node.
    """

    op: str
    module: str
    constant: int
    axes: tuple[np.ndarray, ...]


@dataclass
class Flow:
    """What the rules write to while the graph is traversed.

    `roles` says what part a parameter's axis plays: filter (makes the channels), passed (one filter for each
    channel or block that enters), consumer, norm, bias or other. `op`, `module`, `depth` and `shape` describe
    the current node; an op with several outputs has a list of shapes.
    """

    units: Units = field(default_factory=Units)
    roles: dict[tuple[str, int], str] = field(default_factory=dict)
    attributes: list[Attribute] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    produced: list[Produced] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    op: str = ""
    node: str = ""
    module: str = ""
    depth: int = 0
    shape: Any = ()

    def freeze(self, axes: Sequence[Axis], reason: str | None) -> None:
        """Keeps the channels of `axes`; with a reason, the current node is reported as a barrier."""
        cause = FIXED
        if reason is not None:
            cause = len(self.causes)
            self.causes.append(Cause(self.op, self.node, self.module, reason))
        for axis in axes:
            if axis is not None:
                self.units.freeze(axis, cause)

    def tie(self, a: Axis, b: Axis) -> Axis:
        """Couples two axes position by position. A fixed axis on one side fixes the other."""
        if a is None or b is None:
            for axis in (a, b):
                if axis is not None:
                    self.freeze([axis], "couples these channels with an axis from which nothing can be removed")
            return None
        if a.shape != b.shape:
            raise Unsupported(f"couples axes of {a.shape} and {b.shape} (positions, factors)")
        uneven = ((a < 0) != (b < 0)).any(axis=1)  # positions that one side can't lose
        if uneven.any():
            self.freeze([a[uneven], b[uneven]], "couples these channels with some that can't be removed")
        both = ~uneven[:, None] & (a >= 0)
        self.units.tie(a[both], b[both])
        return np.where(uneven[:, None], -1, a) if uneven.any() else a

    def role(self, value: Value, dim: int, role: str) -> None:
        if value.key is not None:
            self.roles.setdefault((value.key, dim), role)

    def attribute(self, value: Value, name: str, axis: Axis, divisor: int = 1) -> None:
        """Notes that `name` of the module that owns parameter `value` follows `axis`."""
        if value.key is not None and axis is not None:
            self.attributes.append(Attribute(value.key.rpartition(".")[0], name, axis, divisor))

    def cost(self, op: str, total: int, *axes: Axis) -> None:
        """Notes a node of `total` multiply-adds in proportion to the length of each of `axes`."""
        live = tuple(axis for axis in axes if axis is not None)
        constant = total // math.prod(len(axis) for axis in live)
        self.costs.append(Cost(op, self.module, constant, live))


Rule = Callable[..., "Value | list[Value]"]
RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Registers a rule for ATen ops; a second rule for the same op raises."""

    def register(function: Rule) -> Rule:
        for op in ops:
            if op in RULES:
                raise ValueError(f"op {op} has a rule already")
            RULES[op] = function
        return function

    return register


# --- pointwise: every position stays where it is -----------------------------------------------------------

_UNARY = (
    "relu relu6 hardtanh silu sigmoid hardsigmoid hardswish gelu elu selu celu leaky_relu tanh mish softplus "
    "log_sigmoid hardshrink softsign abs neg exp log sqrt rsqrt square reciprocal pow clamp clamp_min clamp_max "
    "dropout feature_dropout alpha_dropout feature_alpha_dropout clone contiguous detach alias _to_copy to type_as "
    "sin cos erf sign floor ceil round lift_fresh_copy zeros_like ones_like"
)


@rule(*_UNARY.split())
def unary(flow: Flow, x: Value, *_: Any, **__: Any) -> Value:
    if any(isinstance(extra, Value) and not extra.is_fixed for extra in _):
        raise Unsupported("takes a second tensor that carries channels")
    return Value(tuple(flow.shape), x.axes)


@rule("add", "sub", "rsub", "mul", "div", "maximum", "minimum", "where", "lerp", "addcmul")
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


# --- contraction: filters make channels, kernels consume them ----------------------------------------------


@rule("conv1d", "conv2d", "conv3d")
def conv(flow: Flow, x: Value, weight: Value, bias: Value | None = None, *extra: Any, **options: Any) -> Value:
    groups = _groups(x, weight)
    return _conv(flow, x, weight, bias, groups, transposed=False)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(flow: Flow, x: Value, weight: Value, bias: Value | None = None, *extra: Any, **_: Any) -> Value:
    groups = _groups_transposed(flow, weight)
    return _conv(flow, x, weight, bias, groups, transposed=True)


def _groups(x: Value, weight: Value) -> int:
    return x.shape[_channel_dim(x, weight)] // weight.shape[1]


def _groups_transposed(flow: Flow, weight: Value) -> int:
    return int(flow.shape[len(flow.shape) - len(weight.shape) + 1]) // weight.shape[1]


def _channel_dim(x: Value, weight: Value) -> int:
    return len(x.shape) - len(weight.shape) + 1  # an unbatched input has no batch axis


def _conv(flow: Flow, x: Value, weight: Value, bias: Value | None, groups: int, transposed: bool) -> Value:
    if weight.key is None and not weight.is_fixed:
        raise Unsupported("its weight is computed from parameters, which surgery cannot slice yet")
    channel = _channel_dim(x, weight)
    entering = x.axes[channel]
    in_dim, out_dim = (0, 1) if transposed else (1, 0)
    w_in, w_out = weight.axes[in_dim], weight.axes[out_dim]
    _cost_conv(flow, x, weight, transposed)
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


def _all_fixed(flow: Flow, *values: Value) -> Value:
    if not all(value.is_fixed for value in values):
        raise Unsupported("multiplies matrices that carry channels; it has a cost but no rule yet")
    return Value.fixed(flow.shape)


# --- normalisation -----------------------------------------------------------------------------------------


@rule("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def batch_norm(flow: Flow, x: Value, *arguments: Any, **_: Any) -> Value:
    for value in arguments[:4]:
        if isinstance(value, Value):
            flow.tie(x.axes[1], value.axes[0])
            flow.role(value, 0, "norm")
            flow.attribute(value, "num_features", value.axes[0])
    return Value(tuple(flow.shape), x.axes)


# --- reduction and pooling: fine over axes that nothing is removed from ------------------------------------


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d")
@rule("adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d")
@rule("upsample_bicubic2d", "upsample_nearest1d", "upsample_nearest3d", "upsample_linear1d", "upsample_trilinear3d")
def spatial(flow: Flow, x: Value, *_: Any, **__: Any) -> Value | list[Value]:
    """Mixes positions of the trailing axes only; every other axis passes through."""
    shapes = flow.shape if isinstance(flow.shape, list) else [flow.shape]
    made = [
        Value(tuple(s), tuple(a if n == m else None for a, n, m in zip(x.axes, x.shape, s, strict=True)))
        for s in shapes
    ]
    mixed = int(flow.op[-2])  # the op's name ends in 1d, 2d or 3d
    if any(axis is not None for axis in x.axes[-mixed:]):
        raise Unsupported("mixes positions of an axis that carries channels")
    return made if isinstance(flow.shape, list) else made[0]


@rule("mean", "sum", "amax", "amin", "var", "std", "logsumexp")
def reduce(flow: Flow, x: Value, dims: Any = None, keepdim: bool = False, *_: Any, **__: Any) -> Value:
    rank = len(x.shape)
    if not isinstance(dims, (list, tuple, int)) or isinstance(dims, bool):
        dims = list(range(rank))
    over = {d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank))}
    if any(x.axes[d] is not None for d in over):
        raise Unsupported("takes a statistic over the channels themselves")
    kept = [None if d in over else x.axes[d] for d in range(rank) if len(flow.shape) == rank or d not in over]
    return Value(tuple(flow.shape), tuple(kept))


@rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def softmax(flow: Flow, x: Value, dim: int, *_: Any, **__: Any) -> Value:
    if x.axes[dim] is not None:
        raise Unsupported("normalises over the channels themselves")
    return Value(tuple(flow.shape), x.axes)


@rule("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def pad(flow: Flow, x: Value, widths: Sequence[int], *_: Any, **__: Any) -> Value:
    rank = len(x.shape)
    padded = {rank - 1 - i // 2 for i, width in enumerate(widths) if width}
    if any(x.axes[d] is not None for d in padded):
        raise Unsupported("pads the channel axis")
    return Value(tuple(flow.shape), x.axes)


# --- shape -------------------------------------------------------------------------------------------------


@rule("flatten", "view", "reshape", "_unsafe_view", "unflatten", "squeeze", "unsqueeze")
def reshape(flow: Flow, x: Value, *_: Any, **__: Any) -> Value:
    """Follows any row-major reshape that keeps or merges the axes which carry channels."""
    shape = tuple(flow.shape)
    axes: list[Axis] = []
    for before, after in _blocks(x.shape, shape):
        entering = [x.axes[i] for i in before]
        if all(axis is None for axis in entering):
            axes += [None] * len(after)
            continue
        wide = [i for i in after if shape[i] > 1]
        if not after:
            raise Unsupported("drops an axis that carries a channel")
        if len(wide) > 1:
            raise Unsupported(f"splits an axis that carries channels: {x.shape} to {shape}")
        merged = merge(entering, [x.shape[i] for i in before])
        axes += [merged if [i] == (wide or after[:1]) else None for i in after]
    return Value(shape, tuple(axes))


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Splits two shapes of equal size into the finest runs of axes whose products agree."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [], []
        if i < len(before):
            left.append(i)
            i += 1
        if j < len(after):
            right.append(j)
            j += 1
        while (a := math.prod(before[k] for k in left)) != (b := math.prod(after[k] for k in right)):
            if (a < b or j >= len(after)) and i < len(before):
                left.append(i)
                i += 1
            elif j < len(after):
                right.append(j)
                j += 1
            else:
                raise Unsupported(f"reshapes {tuple(before)} to {tuple(after)}, which do not match")
        if blocks and not (left and right):  # trailing axes of length 1
            blocks[-1][0].extend(left)
            blocks[-1][1].extend(right)
            continue
        blocks.append((left, right))
    return blocks


@rule("permute")
def permute(flow: Flow, x: Value, dims: Sequence[int]) -> Value:
    return Value(tuple(flow.shape), tuple(x.axes[d] for d in dims))


@rule("transpose", "swapaxes")
def transpose(flow: Flow, x: Value, a: int, b: int) -> Value:
    axes = list(x.axes)
    axes[a], axes[b] = axes[b], axes[a]
    return Value(tuple(flow.shape), tuple(axes))


@rule("expand")
def expand(flow: Flow, x: Value, *_: Any, **__: Any) -> Value:
    new = len(flow.shape) - len(x.shape)
    kept = [axis if n == m else None for axis, n, m in zip(x.axes, x.shape, flow.shape[new:], strict=True)]
    if any(axis is not None and len(axis) > 1 and k is None for axis, k in zip(x.axes, kept, strict=True)):
        raise Unsupported("expands an axis that carries channels")
    return Value(tuple(flow.shape), (*(None,) * new, *kept))


@rule("cat", "concat", "concatenate")
def cat(flow: Flow, tensors: Sequence[Value], dim: int = 0) -> Value:
    tensors = [x for x in tensors if x.shape != (0,)]
    rank = len(flow.shape)
    axes: list[Axis] = []
    for d in range(rank):
        if d == dim % rank:
            axes.append(concatenate([x.axes[d] for x in tensors], [x.shape[d] for x in tensors]))
            continue
        axis = tensors[0].axes[d]
        for other in tensors[1:]:
            axis = flow.tie(axis, other.axes[d])
        axes.append(axis)
    return Value(tuple(flow.shape), tuple(axes))


# --- indexing: parts of equal size keep equal size, whatever Python derived the bounds from ----------------


@rule("chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split")
def split(flow: Flow, x: Value, *arguments: Any, **options: Any) -> list[Value]:
    dim = options.get("dim", arguments[1] if len(arguments) > 1 else 0) % len(x.shape)
    sizes = [shape[dim] for shape in flow.shape]
    axis = x.axes[dim]
    starts = np.cumsum([0, *sizes])
    if axis is not None:
        _equal_parts(flow, axis, sizes[0], all(size == sizes[0] for size in sizes))
    parts = [None if axis is None else axis[a:b] for a, b in itertools.pairwise(starts)]
    return [_with_axis(x, dim, part, shape) for part, shape in zip(parts, flow.shape, strict=True)]


@rule("slice")
def slice_(flow: Flow, x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    dim %= len(x.shape)
    axis, size = x.axes[dim], x.shape[dim]
    if axis is None:
        return _with_axis(x, dim, None, flow.shape)
    picked = range(size)[slice(start, end, step)]
    if len(picked) == size and step == 1:
        return _with_axis(x, dim, axis, flow.shape)
    width = len(picked)
    if width == 1:
        raise Unsupported("picks one channel by its number")
    aligned = step == 1 and width > 0 and size % width == 0 and picked.start % width == 0
    _equal_parts(flow, axis, width, aligned)
    return _with_axis(x, dim, axis[picked.start : picked.stop], flow.shape)


@rule("select")
def select(flow: Flow, x: Value, dim: int, index: Any) -> Value:
    dim %= len(x.shape)
    if x.axes[dim] is not None:
        raise Unsupported("picks one channel by its number")
    return Value(tuple(flow.shape), tuple(a for d, a in enumerate(x.axes) if d != dim))


def _equal_parts(flow: Flow, axis: np.ndarray, width: int, aligned: bool) -> None:
    """Ties position i of every part, so that the parts stay equal after pruning."""
    if not aligned or len(axis) % width:
        raise Unsupported("cuts the channel axis into unequal parts, whose bounds cannot follow the widths")
    if axis.shape[1] != 1:
        raise Unsupported("cuts an axis made of several factors")
    parts = axis.reshape(-1, width)
    if (parts < 0).any():
        raise Unsupported("cuts an axis of which some channels must stay")
    flow.units.tie(np.broadcast_to(parts[:1], parts.shape), parts)


def _with_axis(x: Value, dim: int, axis: Axis, shape: Sequence[int]) -> Value:
    return Value(tuple(shape), tuple(axis if d == dim else a for d, a in enumerate(x.axes)))


# --- creation: no channel enters ---------------------------------------------------------------------------


@rule("zeros", "ones", "full", "empty", "arange", "scalar_tensor", "new_zeros", "new_ones", "new_full", "full_like")
def create(flow: Flow, *_: Any, **__: Any) -> Value:
    return Value.fixed(flow.shape)
