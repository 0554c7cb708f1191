"""The checks of a running graph form: that the network's code would take the path that was recorded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, OtherSizeError, PlanError

Numbers = Any  # a number, or lists of numbers


def _listed(tensor: Tensor, *_: Any) -> Numbers:
    return tensor.tolist()


_READS: dict[str, Callable[..., Numbers]] = {
    "is_nonzero": bool,
    "equal": torch.equal,
    "allclose": torch.allclose,
    **dict.fromkeys(("item", "_local_scalar_dense", "tolist", "numpy"), _listed),
}


def guard(question: str, read: str, expected: Numbers, *tensors: Any) -> None:
    """Raises ModelError unless `read` (an op's name) returns `expected` for the tensors, as when they were recorded.

    An exporter that traces the network has no values to compare.
    """
    if read not in _READS:
        raise PlanError(f"the plan's program reads tensors by {read!r}, and it can by {', '.join(_READS)}")
    if not _is_exported():
        value = _READS[read](*tensors)
        if not _same(value, expected):
            raise ModelError(_other(question, _short(expected), _short(value)))


def guard_sizes(question: str, observed: Any, expected: list[list[int]]) -> None:
    """Raises ModelError unless `observed`, one tensor or several, has the shapes `expected`, as when recorded."""
    tensors = [observed] if isinstance(observed, Tensor) else observed
    shapes = [list(tensor.shape) for tensor in tensors]
    if not _is_exported() and shapes != expected:
        raise ModelError(_other(question, f"of the sizes {expected}", f"of the sizes {shapes}"))


def _is_exported() -> bool:
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def limit(tensor: Tensor, name: str) -> float:
    """The least or largest number of a tensor's dtype, or another of its limits, as torch.finfo calls it."""
    return float(getattr(torch.finfo(tensor.dtype), name))


def takes(name: str, tensor: Tensor, sizes: list[int | None]) -> None:
    """Raises ModelError unless an input has as many axes as `sizes`, and those sizes, where it names one."""
    shape = tuple(tensor.shape)
    if len(shape) != len(sizes) or any(size not in (None, s) for s, size in zip(shape, sizes, strict=True)):
        expected = ", ".join("any" if size is None else str(size) for size in sizes)
        raise OtherSizeError(
            f"this slim network takes {name} of shape ({expected}), not {shape}: it was traced for that size alone. "
            "Trace at the size that it is to run at, or prune in module form"
        )


def check(line: str, outcome: bool, expected: bool) -> None:
    """Raises ModelError if a comparison of sizes in the dense network's code, at `line`, comes out as when traced."""
    if bool(outcome) is not expected:
        raise OtherSizeError(
            f"this slim network can't take inputs of this size: at {line} the dense network's code compares sizes, and "
            "takes another path than at the size that was traced. Trace at this size, or prune in module form"
        )


def _same(a: Numbers, b: Numbers) -> bool:
    if isinstance(a, list) or isinstance(b, list):
        return isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) or isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6) or (math.isnan(a) and math.isnan(b))
    return a == b


def _other(question: str, expected: str, observed: str) -> str:
    return (
        f"this graph form can't run on this input: {question} was {expected} when it was traced and is {observed} now, "
        'where the network\'s code may do something else. Trace an example like this input, or take form="module"'
    )


def _short(value: Numbers) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
