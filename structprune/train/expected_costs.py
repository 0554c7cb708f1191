"""What a network costs in the mean where each of its units stays with a probability: differentiable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..graph import DependencyGraph
from ..graph.channels import Term
from ..plan.budget import LATENCY, SPEEDUP

if TYPE_CHECKING:
    from ..plan.budget import Cost


class ExpectedCosts:
    """The shares of the dense network's multiply-adds, parameters, units and time that stay, as sums of products of
    widths.

    The width of an axis is the sum, over its positions, of the probability that all units on it stay. Axes of one term
    count as independent, which they are where they belong to different groups.

    The time that a width takes goes in steps on a runtime that pads channels to whole blocks, and its slope is zero
    between them. Here it is interpolated over the widths that are whole blocks and the dense one, where it is as
    measured: these are the widths that a plan chooses among.
    """

    def __init__(self, graph: DependencyGraph, device: torch.device, cost: Cost | None = None) -> None:
        """`cost` is what widths cost on a runtime, where there are budgets of speed."""
        self.classes, self.device = graph.classes, device
        self.ids = {group.name: torch.as_tensor(group.ids.copy(), device=device).long() for group in graph.groups}
        self.units = sum(group.units for group in graph.groups)
        self.axes: dict[bytes, Tensor] = {}
        self.terms = {"macs": self._compile(graph.macs_terms), "params": self._compile(graph.params_terms)}
        self.dense: dict[str, float] = {"macs": graph.macs(), "params": graph.params()}
        if cost is not None:
            polynomial = cost.latency
            time = [
                (float(coefficient), [(self._place(axis), block) for axis, block in row])
                for coefficient, row in zip(polynomial.coefficients, polynomial.axes, strict=True)
            ]
            self.terms |= {LATENCY: time, SPEEDUP: time}
            self.dense |= {LATENCY: cost.dense_ms, SPEEDUP: cost.dense_ms}

    def share(self, name: str, probabilities: Mapping[str, Tensor]) -> Tensor:
        """How much of a budget's amount stays, in (0, 1]: of the time for `latency_ms` and `speedup`.

        `probabilities` are those of the units of groups by name, (units,); the units of other groups stay.
        """
        if name == "channels":
            gone = sum((len(each) - each.sum() for each in probabilities.values()), torch.zeros((), device=self.device))
            return 1 - gone / self.units
        stays = torch.ones(self.classes + 1, device=self.device)  # the last is what the padding -1 looks up
        for group, values in probabilities.items():
            stays = stays.index_put((self.ids[group],), values.to(stays.dtype))
        terms, keys = self.terms[name], {key for _, factors in self.terms[name] for key, _ in factors}
        widths = {key: stays[self.axes[key]].prod(1).sum() for key in keys}
        products = [
            constant * math.prod([in_blocks(widths[key], len(self.axes[key]), block) for key, block in factors])
            for constant, factors in terms
        ]
        return _sum(products, self.device) / self.dense[name]

    def _compile(self, terms: Sequence[Term]) -> list[tuple[float, list[tuple[bytes, int]]]]:
        return [(term.constant / term.divisor, [(self._place(axis), 1) for axis in term.axes]) for term in terms]

    def _place(self, axis: np.ndarray) -> bytes:
        key = axis.tobytes() + str(axis.shape).encode()
        if key not in self.axes:
            self.axes[key] = torch.as_tensor(axis.copy(), device=self.device).long()
        return key


def in_blocks(width: Tensor, dense: int, block: int) -> Tensor:
    """What a width of at most `dense` counts as where channels are padded to whole blocks: exact at whole blocks and at
    the dense width, and linear between them."""
    whole = dense - dense % block
    return width if whole == dense else width.clamp_max(whole) + (width - whole).clamp_min(0) * block / (dense - whole)


def _sum(values: Iterable[Tensor | float], device: torch.device) -> Tensor:
    return sum((torch.as_tensor(value, device=device) for value in values), torch.zeros((), device=device))
