"""Admits what a stored program may call, by list: it comes with a plan, from anywhere.

Which ops are admitted is said in `graph.permitted_ops`. Those that trust sizes or places that they are given, and are
common in networks (`lstm`, `_weight_norm`, `embedding_bag`), run behind a check. What makes a tensor without filling
it (`empty`) gives zeros: code that fills it sees no difference, and code that does not sees no old memory. These lists
are not in the records of ops: they hold for a program's methods and functions too, which have none, and what a file may
ask for must not hang on what anyone registers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ..errors import PlanError
from ..graph.permitted_ops import refusal
from ..ops import op_name

# Methods and functions by the names that programs use for them.
METHODS = {name: name for name in ("repeat", "size", "view", "reshape", "expand", "new_zeros", "new_ones", "new_full")}
METHODS["new_empty"] = "new_zeros"
CREATED: dict[str, Callable[..., Any]] = {
    **{"split": torch.split, "zeros": torch.zeros, "ones": torch.ones, "full": torch.full},
    "empty": torch.zeros,
}
_MOST_SIZE = 1 << 62
MOST_MADE = 1 << 28  # the most numbers that a program may ask for in one tensor by literal sizes

# The ops that make a tensor of given sizes, and the place of the sizes among their arguments.
_MADE = {
    **dict.fromkeys(("zeros", "ones", "full", "empty", "rand", "randn", "eye"), 0),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty", "repeat", "tile", "upsample_nearest1d"), 1),
    **{f"upsample_{kind}": 1 for kind in ("nearest2d", "bilinear2d", "bicubic2d", "nearest3d", "trilinear3d")},
    **dict.fromkeys(("upsample_linear1d", "constant_pad_nd", "pad", "col2im"), 1),
    **dict.fromkeys(("arange", "linspace", "logspace", "range", "hann_window", "randperm"), 0),
}


def op(name: str, args: Sequence[Any] = ()) -> Callable[..., Any]:
    """What runs for an op, by the name that its overload prints, `aten.conv2d.default`. Raises PlanError."""
    try:
        namespace, base, overload = name.split(".")
        overloaded = getattr(getattr(getattr(torch.ops, namespace), base), overload)
    except (AttributeError, ValueError, RuntimeError) as error:
        raise PlanError(
            f"the plan's program can't be built: {name!r} is not an op here ({type(error).__name__})"
        ) from error
    if not isinstance(overloaded, torch._ops.OpOverload):
        raise PlanError(f"the plan's program names {name}, which is not an op")
    reason = refusal(overloaded)
    if reason:
        raise PlanError(f"the plan's program names {name}, which {reason}")
    short = op_name(overloaded)
    if _takes_size_for_number(overloaded, args):
        return getattr(torch.Tensor if overloaded._schema.is_mutable else torch, base, overloaded)
    return _INSTEAD.get(short, overloaded)


def _takes_size_for_number(overloaded: torch._ops.OpOverload, args: Sequence[Any]) -> bool:
    """Whether a number among the arguments is computed by the program.

    Tracers (fvcore's, ONNX's) hand sizes on as tensors. Only torch's own functions accept these as numbers.
    """
    kinds = [str(argument.type) for argument in overloaded._schema.arguments]
    return any("number" in kind and isinstance(arg, fx.Node) for kind, arg in zip(kinds, args, strict=False))


def check_sizes(name: str, args: Sequence[Any]) -> None:
    """Raises PlanError for a call that would make a tensor that is far too large."""
    place = _MADE.get(name.rstrip("_"))
    if place is None:
        return
    requested = args[place] if len(args) > place and isinstance(args[place], (list, tuple)) else args[place:]
    sizes = [abs(size) for size in requested if type(size) in (int, float)]
    if any(size > MOST_MADE for size in sizes) or math.prod(max(1, int(size)) for size in sizes) > MOST_MADE:
        raise PlanError(f"the plan's program asks {name} for {sizes} numbers, more than {MOST_MADE:,}")


def check_numbers(kind: str, args: Sequence[Any]) -> None:
    """Raises PlanError unless arithmetic is done with numbers and results."""
    if not all(isinstance(arg, (fx.Node, int, float, np.integer)) for arg in args):
        raise PlanError(f"the plan's program does arithmetic ({kind}) with something that is not a number: {args}")


def times(a: Any, b: Any) -> Any:
    """Multiplies sizes. Raises PlanError for a product that is too large to be a size."""
    product = a * b
    if isinstance(product, int) and abs(product) > _MOST_SIZE:
        raise PlanError(f"the plan's program multiplies sizes to {product:.3g}")
    return product


def checked_lstm(x: Tensor, *rest: Any) -> Any:
    """Runs `aten.lstm` if weights and states fit the input: on a CPU its kernel would read and write beyond others."""
    packed = isinstance(rest[0], Tensor)  # (data, batch_sizes, hx, ...) of a packed sequence
    hx, params, biases, layers, _, _, both = rest[1:8] if packed else rest[:7]
    width, hidden, directions = int(hx[0].shape[-1]), int(hx[1].shape[-1]), 2 if both else 1
    shapes: list[tuple[int, ...]] = []
    for layer in range(layers):
        entering = int(x.shape[-1]) if layer == 0 else width * directions
        each = [(4 * hidden, entering), (4 * hidden, width), *([(4 * hidden,)] * 2 if biases else [])]
        shapes += [*each, *([(width, hidden)] if width != hidden else [])] * directions
    weight_shapes = [tuple(int(size) for size in weight.shape) for weight in params]
    if weight_shapes != shapes:
        raise PlanError(f"an LSTM's weights are {weight_shapes}, and its input and state make them {shapes}")
    if not packed and x.dim() != 3:
        raise PlanError(f"an LSTM's input has the shape {tuple(x.shape)}")
    batch = int(rest[0][0]) if packed else int(x.shape[0 if rest[7] else 1])
    state_shapes = [(layers * directions, batch, size) for size in (width, hidden)]
    states = [tuple(int(size) for size in state.shape) for state in hx]
    if states != state_shapes:
        raise PlanError(f"an LSTM's states are {states}, and its input makes them {state_shapes}")
    return torch.ops.aten.lstm(x, *rest)


def checked_weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Runs `aten._weight_norm` if each slice of the weight has a length: its kernel would read beyond fewer."""
    expected = tuple(int(size) if axis == dim else 1 for axis, size in enumerate(v.shape))
    if dim in (0, v.dim() - 1) and tuple(g.shape) != expected:
        raise PlanError(f"a normalised weight of shape {tuple(v.shape)} has lengths of shape {tuple(g.shape)}")
    return torch._weight_norm(v, g, dim)


def checked_embedding_bag(weight: Tensor, indices: Tensor, offsets: Tensor, *rest: Any, **options: Any) -> Any:
    """Runs `aten.embedding_bag` if the bags lie within the indices: its kernel would read before and behind them."""
    places = [0, *(int(place) for place in offsets.flatten().tolist()), int(indices.numel())]
    if any(a > b for a, b in itertools.pairwise(places)):
        raise PlanError(f"an embedding's bags start at {places[1:-1][:8]}, and have {places[-1]} indices")
    return torch.ops.aten.embedding_bag(weight, indices, offsets, *rest, **options)


def zeros(size: Sequence[int], *, memory_format: torch.memory_format | None = None, **options: Any) -> Tensor:
    """Stands in for `aten.empty`."""
    tensor = torch.zeros(size, **options)
    return tensor if memory_format is None else tensor.contiguous(memory_format=memory_format)


_INSTEAD: dict[str, Callable[..., Any]] = {
    "lstm": checked_lstm,
    "_weight_norm": checked_weight_norm,
    "embedding_bag": checked_embedding_bag,
    "empty": zeros,
    "new_empty": torch.ops.aten.new_zeros.default,
    "empty_like": torch.ops.aten.zeros_like.default,
}
