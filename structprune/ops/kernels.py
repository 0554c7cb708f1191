"""What frequent ops make of meta tensors, where torch's own meta kernels are Python and take up to two milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ATEN = torch.ops.aten
_BINARY = frozenset([_ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor])
_UNARY = frozenset(
    getattr(_ATEN, name).default for name in ("hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "gelu")
)


def is_plain(op: Any, args: tuple[Any, ...]) -> bool:
    """Whether this is one of the frequent ops whose meta kernels are Python and take up to two milliseconds, in a
    form that plainly runs."""
    if op in _UNARY:
        return args[0].is_meta and args[0].is_floating_point()
    if op is _ATEN.linear.default:
        x, weight = args[:2]
        bias = args[2] if len(args) > 2 else None
        operands = [x, weight] if bias is None else [x, weight, bias]
        plain = all(t.is_meta and t.dtype == x.dtype and t.is_floating_point() for t in operands)
        fits = x.dim() > 1 and weight.dim() == 2 and x.shape[-1] == weight.shape[1]
        return plain and fits and (bias is None or bias.shape == weight.shape[:1])
    if op is _ATEN.lstm.input and len(args) == 9:
        x, (hidden, cell), weights = args[0], args[1], args[2]
        known = x.dim() == 3 and all(t.is_meta and t.dtype == x.dtype for t in (x, hidden, cell, *weights))
        samples = x.shape[0 if args[8] else 1] if known else 0
        fits = known and samples == hidden.shape[1] == cell.shape[1]
        return fits and weights[0].shape == (4 * cell.shape[-1], x.shape[-1])
    if op is _ATEN.batch_norm.default:
        return args[0].is_meta and all(
            t is None or (t.dim() == 1 and t.shape[0] == args[0].shape[1]) for t in args[1:5]
        )
    if op is _ATEN.layer_norm.default:
        inner = args[0].shape[args[0].dim() - len(args[1]) :]
        return args[0].is_meta and tuple(args[1]) == inner and all(t is None or t.shape == inner for t in args[2:4])
    if op in _BINARY:
        a, b = args[0], args[1]
        return isinstance(b, Tensor) and a.is_meta and b.is_meta and a.shape == b.shape and a.dtype == b.dtype
    return False


def quick(op: Any, args: tuple[Any, ...]) -> Tensor | tuple[Tensor, ...]:
    """What such an op makes, laid out as the op lays it out."""
    x = args[0]
    if op in _UNARY:
        return x if op._schema.is_mutable else torch.empty_like(x)
    if op in _BINARY:
        return torch.empty_like(x)
    if op is _ATEN.linear.default:
        return x.new_empty([*x.shape[:-1], args[1].shape[0]])
    if op is _ATEN.lstm.input:  # torch's own takes it apart step by step
        hidden, cell = args[1]
        directions = 2 if args[7] else 1
        return (
            x.new_empty([*x.shape[:2], directions * hidden.shape[-1]]),
            torch.empty_like(hidden),
            torch.empty_like(cell),
        )
    layout = torch.contiguous_format
    if op is _ATEN.batch_norm.default:
        for rank, candidate in ((4, torch.channels_last), (5, torch.channels_last_3d)):
            if x.dim() == rank and x.is_contiguous(memory_format=candidate):
                layout = candidate
    return torch.empty_like(x, memory_format=layout)
