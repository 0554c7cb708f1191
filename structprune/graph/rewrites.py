"""How the calls of a program are written where channels go: one rewrite for each kind of op.

A rewrite gets what follows the program's numbers, the recorded node and its arguments as plain data. It returns what
the program says instead (kind, target, arguments, keyword arguments), or None where the call stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import fx

from ..errors import ModelError
from ..ops import op_name
from ..ops.provenance import Number
from ..ops.record import place, record_of
from .number_formulas import Follower
from .values import Value

Rewrite = Callable[[Follower, fx.Node, list[Any], dict[str, Any]], "tuple[Any, ...] | None"]


def sized(method: str) -> Rewrite:
    """Of ops that take the sizes of their result: a method of tensors stands for them."""

    def rewrite(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        if len(node.args) < 2 or not isinstance(node.args[1], (list, tuple)):  # view(dtype)
            return None
        shape = w.shape(node, node.args[1])
        return "method", method, [args[0], shape if method == "expand" else _inferred(shape)]

    return rewrite


def _inferred(shape: list[Any]) -> list[Any]:
    """The shape with -1 in place of the one size that is not known, as all elements must go somewhere."""
    unsolved = [i for i, size in enumerate(shape) if isinstance(size, tuple)]
    if len(unsolved) == 1 and -1 not in shape:
        shape[unsolved[0]] = -1
    return shape


def like(method: str) -> Rewrite:
    """Of ops whose result has the sizes of another tensor."""

    def rewrite(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        shape = w.shape(node)
        return "method", method, [args[0], shape if method == "expand" else _inferred(shape)]

    return rewrite


def unflatten(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return "method", "reshape", [args[0], _inferred(w.shape(node))]


def new(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return "method", op_name(node.target), [args[0], w.shape(node, node.args[1]), *args[2:]], _plain(kwargs)


def created(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return "torch", op_name(node.target), [w.shape(node, node.args[0]), *args[1:]], _plain(kwargs)


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key in ("dtype", "device") and value is not None}


def split(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    source: Value = w.value(node.args[0])
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0) % len(source.shape)
    sizes = [w.length(part.axes[dim], part.shape[dim]) for part in w.value(node)]
    return None if source.axes[dim] is None else ("torch", "split", [args[0], sizes, dim])


def slice_(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    source: Value = w.value(node.args[0])
    dim = (args[1] if len(args) > 1 else 0) % len(source.shape)
    axis = source.axes[dim]
    if any(isinstance(bound, fx.Node) for bound in node.args[2:]):
        return None  # such an axis stays whole
    calls: list[Any] = [node, *(trial.nodes[node.name] for trial in w.sizes.trials)]
    step = _bounds(node)[2] or 1
    ends = not isinstance(_bounds(node)[1], Number) and all(
        (_bounds(call)[1] or 0) >= call.args[0].meta["val"].shape[dim] for call in calls
    )
    if axis is None or step != 1:
        if op_name(node.target) == "narrow" or not ends:
            return None
        return "op", "aten.slice.Tensor", [args[0], dim, args[2] if len(args) > 2 else 0, MOST, step]
    picked = [range(call.args[0].meta["val"].shape[dim])[slice(*_bounds(call))] for call in calls]
    limits: list[Any] = [*node.args[2:], None, None][:2]
    bounds = []
    for bound, places in zip(limits, zip(*((r.start, r.stop) for r in picked), strict=True), strict=True):
        own = bound if isinstance(bound, Number) and int(bound) == places[0] else places[0]
        bounds.append(w.number(node, own, list(places[1:]), w.length(axis[: places[0]], places[0])))
    return "op", "aten.slice.Tensor", [args[0], dim, bounds[0], MOST if ends else bounds[1]]


def _bounds(node: fx.Node) -> tuple[Any, Any, Any]:
    """The start, stop and step of a slice."""
    bounds: list[Any] = [*node.args[2:], None, None, None]
    start, stop, step = bounds[:3]
    if op_name(node.target) == "narrow" and start < 0:
        x: Any = node.args[0]
        start += x.meta["val"].shape[node.args[1]]
    return (start, start + stop, 1) if op_name(node.target) == "narrow" else (start, stop, step)


MOST = sys.maxsize  # as a slice's end: all that there is


def grouped(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    """Of convolutions: as many groups as the channels that are left make blocks of the weight that is left."""
    record = record_of(op_name(node.target))
    at, recorded = record.place(node.target, "groups"), record.read(node, "groups")  # type: ignore[arg-type]
    if at is None or recorded == 1:
        return None
    entering, weights = record.read(node, "input"), record.read(node, "weight")
    x, weight, output = w.value(entering), w.value(weights), w.value(node)
    channel = len(x.shape) - len(weight.shape) + 1
    whole = output if record.kind == "transposed convolution" else x
    groups = w.length(whole.axes[channel], whole.shape[channel]) // w.length_of(weights, 1)
    if at < len(args):
        groups = w.number(node, recorded, w.others(node, "args", at), groups)
        return "op", str(node.target), [*args[:at], groups, *args[at + 1 :]], kwargs
    name = record.name_of("groups")
    groups = w.number(node, recorded, w.others(node, "kwargs", name), groups)
    return "op", str(node.target), args, {**kwargs, name: groups}


def normed(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    x: Value = w.value(node.args[0])
    shape_of_norm: Any = node.args[1]
    skipped = len(x.shape) - len(shape_of_norm)
    slim = [w.length(axis, size) for axis, size in zip(x.axes[skipped:], x.shape[skipped:], strict=True)]
    shape = [w.number(node, n, w.others(node, "args", 1, i), slim[i]) for i, n in enumerate(shape_of_norm)]
    return "op", str(node.target), [args[0], shape, *args[2:]], kwargs


def grouped_norm(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    x: Value = w.value(node.args[0])
    if x.axes[1] is None or node.args[1] != x.shape[1]:
        return None
    return "op", str(node.target), [args[0], w.length_of(node.args[0], 1), *args[2:]], kwargs  # each channel by itself


def attention(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    scale = kwargs.get("scale")
    q: Value = w.value(node.args[0])
    if scale is None and q.axes[-1] is None:
        return None  # no channel goes here, so the op's own scale is right at any size
    width = q.shape[-1]
    return "op", str(node.target), args, {**kwargs, "scale": width**-0.5 if scale is None else scale}


def repeat(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """An axis of one position is laid end to end as often as the result has positions."""
    output, before = w.value(node), w.value(node.args[0]).shape
    before = [1] * (len(output.shape) - len(before)) + list(before)
    repeats = [1] * (len(before) - len(args[1])) + list(args[1])
    times = [
        slim if size == 1 and axis is not None else n
        for size, axis, n, slim in zip(before, output.axes, repeats, w.shape(node), strict=True)
    ]
    return "op", str(node.target), [args[0], times], kwargs


def trains(argument: str) -> Rewrite:
    """Of ops that do something else in training, as this argument says: it follows the network's own mode."""

    def rewrite(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        at: Any = place(node.target, argument)  # type: ignore[arg-type]
        if len(args) <= at or args[at] is not False:
            return None  # statistics of the batch, always
        return "op", str(node.target), [*args[:at], {"$training": True}, *args[at + 1 :]], kwargs

    return rewrite


def batch_norm(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    """The same, of a BatchNorm. Raises ModelError for one whose momentum is worked out by its module."""
    running, momentum = (place(node.target, name) or 0 for name in ("running_mean", "momentum"))  # type: ignore[arg-type]
    if args[running] is not None and args[momentum] == 0.0:
        raise ModelError(
            f"the graph form can't train {node.meta['module']}: BatchNorm with momentum=None counts in code"
        )
    return trains("training")(w, node, args, kwargs)


def fresh(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return "op", "aten.clone.default", args  # of a constant that the code may write to


def detached(w: Follower, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return "op", "aten.detach.default", args  # also of a view, which can't be detached in place
