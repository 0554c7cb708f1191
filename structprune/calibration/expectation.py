"""Means and variances of channels from BatchNorm's parameters alone: those of the data that the network was trained on.

What a BatchNorm makes has mean β and variance γ² over the training data; taken as normal, what an activation makes of
it follows by Gauss-Hermite quadrature, and sums add up as if their terms were independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from ..ops import Captured, leaves_of, op_name

_NAMES = """relu relu6 hardtanh silu sigmoid tanh gelu elu selu celu leaky_relu hardswish hardsigmoid mish softplus
clamp clamp_min clamp_max abs"""
POINTWISE = frozenset(_NAMES.split())
TRANSPARENT = frozenset(["dropout", "contiguous", "clone", "detach", "alias"])
AVERAGES = frozenset(["adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "mean"])
POINTS = 128


@dataclass(frozen=True)
class Expected:
    """Mean and variance of each channel, shapes (channels,); the variance is None behind an average over places."""

    mean: Tensor
    variance: Tensor | None
    normal: bool


class Expectations:
    """What BatchNorms say of the channels of each node of a recorded forward pass."""

    def __init__(self, captured: Captured, state: Mapping[str, Tensor]) -> None:
        self.captured, self.state = captured, state
        self._known: dict[fx.Node, Expected | None] = {}

    def of(self, node: fx.Node) -> Expected | None:
        """None where the channels do not come straight from BatchNorms."""
        if node not in self._known:
            self._known[node] = self._of(node) if node.op == "call_function" else None
        return self._known[node]

    def _of(self, node: fx.Node) -> Expected | None:
        name = op_name(node.target)
        given = [argument for argument in leaves_of(node.args) if isinstance(argument, fx.Node)]
        if name == "batch_norm":
            scale, shift = (self._parameter(argument) for argument in node.args[1:3])
            if scale is None or shift is None:
                return None
            return Expected(shift, scale.square(), normal=True)
        if name == "add" and len(given) == 2 and len(node.args) == 2 and not node.kwargs:
            a, b = (self.of(argument) for argument in given)
            if a is None or b is None or a.variance is None or b.variance is None or a.mean.shape != b.mean.shape:
                return None
            return Expected(a.mean + b.mean, a.variance + b.variance, normal=a.normal and b.normal)
        if name == "cat" and (node.args[1] if len(node.args) > 1 else 0) == 1:
            parts = [self.of(argument) for argument in given]
            if not all(part is not None and part.variance is not None for part in parts):
                return None
            return Expected(
                torch.cat([part.mean for part in parts if part is not None]),
                torch.cat([part.variance for part in parts if part is not None and part.variance is not None]),
                normal=all(part is not None and part.normal for part in parts),
            )
        if not given or not isinstance(node.args[0], fx.Node):
            return None
        before = self.of(node.args[0])
        if before is None or name in TRANSPARENT:
            return before
        if name in POINTWISE and len(given) == 1 and before.normal and before.variance is not None:
            return through(step(node), before.mean, before.variance)
        shape = node.args[0].meta["val"].shape
        averaged = sorted(d % len(shape) for d in _dims(node)) if name == "mean" else list(range(2, len(shape)))
        if name in AVERAGES and averaged == list(range(2, len(shape))):
            return Expected(before.mean, None, normal=False)
        if name in ("flatten", "squeeze") and math.prod(shape[2:]) == 1:
            return before
        return None

    def _parameter(self, argument: object) -> Tensor | None:
        key = self.captured.parameters.get(argument.name) if isinstance(argument, fx.Node) else None
        return None if key is None else self.state[key].detach().double().cpu()


def through(activate: Callable[[Tensor], Tensor], mean: Tensor, variance: Tensor) -> Expected:
    """Mean and variance of a function of normal channels."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(POINTS)
    share = torch.from_numpy(weights / weights.sum())[:, None]
    values = activate(torch.from_numpy(nodes)[:, None] * variance.double().cpu().sqrt() + mean.double().cpu())
    made = (values * share).sum(0)
    return Expected(made, ((values - made).square() * share).sum(0), normal=False)


def step(node: fx.Node) -> Callable[[Tensor], Tensor]:
    """What the op of a node does to its first argument."""
    return lambda values: node.target(values.clone(), *node.args[1:], **node.kwargs)  # type: ignore[operator]


def _dims(node: fx.Node) -> list[int]:
    dims = node.args[1] if len(node.args) > 1 else ()
    return [int(d) for d in dims] if isinstance(dims, (list, tuple)) else []
