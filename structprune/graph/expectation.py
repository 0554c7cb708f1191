"""Means and variances of channels from BatchNorm's parameters alone: those of the data that the network was trained on.

What a BatchNorm makes has mean β and variance γ² over the training data; taken as normal, what an activation makes of
it follows by Gauss-Hermite quadrature, and sums add up as if their terms were independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from ..ops import Captured, leaves_of, op_name
from ..ops.record import record_of
from .recorded_calls import function_of

POINTS = 128


@dataclass(frozen=True)
class Expected:
    """Mean and variance of each channel, shapes (channels,); the variance is None behind an average over places."""

    mean: Tensor
    variance: Tensor | None
    normal: bool


class Expectations:
    """What BatchNorms say of the channels of each value of a recorded pass."""

    def __init__(self, recording: Captured, state: Mapping[str, Tensor]) -> None:
        self._parameters, self.state = recording.parameters, state
        self._nodes = {node.name: node for node in recording.graph.nodes}
        self._known: dict[fx.Node, Expected | None] = {}

    def of(self, name: str) -> Expected | None:
        """What they say of the value of that name; None if its channels do not come straight from BatchNorms."""
        return self._at(self._nodes[name])

    def _at(self, node: fx.Node) -> Expected | None:
        if node not in self._known:
            self._known[node] = self._of(node) if node.op == "call_function" else None
        return self._known[node]

    def _of(self, node: fx.Node) -> Expected | None:
        record = record_of(op_name(node.target))
        inputs = [argument for argument in leaves_of(node.args) if isinstance(argument, fx.Node)]
        if record.kind == "batch norm":
            scale, shift = (self._parameter(record.read(node, role)) for role in ("weight", "bias"))
            if scale is None or shift is None:
                return None
            return Expected(shift, scale.square(), normal=True)
        if record.effect == "sum" and len(inputs) == 2 and len(node.args) == 2 and not node.kwargs:
            return self._sum(*inputs)
        if record.effect == "joined" and (node.args[1] if len(node.args) > 1 else 0) == 1:
            return self._joined(inputs)
        if not inputs or not isinstance(node.args[0], fx.Node):
            return None
        before = self._at(node.args[0])
        if before is None or record.effect == "same":
            return before
        if record.effect == "activation" and len(inputs) == 1 and before.normal and before.variance is not None:
            return through(function_of(node), before.mean, before.variance)
        shape = node.args[0].meta["val"].shape
        places = list(range(2, len(shape)))
        over_all = record.effect == "mean" and sorted(d % len(shape) for d in _dims(node)) == places
        if record.effect == "average" or over_all:
            return Expected(before.mean, None, normal=False)
        if record.effect == "squeezed" and math.prod(shape[2:]) == 1:
            return before
        return None

    def _sum(self, *nodes: fx.Node) -> Expected | None:
        a, b = (self._at(node) for node in nodes)
        if a is None or b is None or a.variance is None or b.variance is None or a.mean.shape != b.mean.shape:
            return None
        return Expected(a.mean + b.mean, a.variance + b.variance, normal=a.normal and b.normal)

    def _joined(self, nodes: Sequence[fx.Node]) -> Expected | None:
        parts = [part for node in nodes if (part := self._at(node)) is not None]
        variances = [part.variance for part in parts if part.variance is not None]
        if len(variances) < len(nodes):
            return None
        mean = torch.cat([part.mean for part in parts])
        return Expected(mean, torch.cat(variances), normal=all(part.normal for part in parts))

    def _parameter(self, argument: object) -> Tensor | None:
        key = self._parameters.get(argument.name) if isinstance(argument, fx.Node) else None
        return None if key is None else self.state[key].detach().double().cpu()


def through(activate: Callable[[Tensor], Tensor], mean: Tensor, variance: Tensor) -> Expected:
    """Mean and variance of a function of normal channels."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(POINTS)
    share = torch.from_numpy(weights / weights.sum())[:, None]
    values = activate(torch.from_numpy(nodes)[:, None] * variance.double().cpu().sqrt() + mean.double().cpu())
    result = (values * share).sum(0)
    return Expected(result, ((values - result).square() * share).sum(0), normal=False)


def _dims(node: fx.Node) -> list[int]:
    dims = node.args[1] if len(node.args) > 1 else ()
    return [int(d) for d in dims] if isinstance(dims, (list, tuple)) else []
