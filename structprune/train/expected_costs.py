"""What a network costs in the mean where each of its units stays with a probability: differentiable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..graph import DependencyGraph
from ..graph.channels import Term


class ExpectedCosts:
    """The shares of the dense network's multiply-adds, parameters and units that stay, as sums of products of widths.

    The width of an axis is the sum, over its positions, of the probability that all units on it stay. Axes of one term
    count as independent, which they are where they belong to different groups.
    """

    def __init__(self, graph: DependencyGraph, device: torch.device) -> None:
        self.classes, self.device = graph.classes, device
        self.ids = {group.name: torch.as_tensor(group.ids.copy(), device=device).long() for group in graph.groups}
        self.units = sum(group.units for group in graph.groups)
        self.axes: dict[bytes, Tensor] = {}
        self.terms = {"macs": self._compile(graph.macs_terms), "params": self._compile(graph.params_terms)}
        self.dense = {"macs": graph.macs(), "params": graph.params()}

    def share(self, name: str, probabilities: Mapping[str, Tensor]) -> Tensor:
        """How much of `macs`, `params` or `channels` stays, in (0, 1].

        `probabilities` are those of the units of groups by name, (units,); the units of other groups stay.
        """
        if name == "channels":
            gone = sum((len(each) - each.sum() for each in probabilities.values()), torch.zeros((), device=self.device))
            return 1 - gone / self.units
        stays = torch.ones(self.classes + 1, device=self.device)  # the last is what the padding -1 looks up
        for group, values in probabilities.items():
            stays = stays.index_put((self.ids[group],), values.to(stays.dtype))
        widths = {key: stays[axis].prod(1).sum() for key, axis in self.axes.items()}
        terms = [constant * math.prod([widths[key] for key in axes]) for constant, axes in self.terms[name]]
        return (
            sum((torch.as_tensor(term, device=self.device) for term in terms), torch.zeros((), device=self.device))
            / (self.dense[name])
        )

    def _compile(self, terms: Sequence[Term]) -> list[tuple[float, list[bytes]]]:
        compiled = []
        for term in terms:
            keys = []
            for axis in term.axes:
                key = axis.tobytes() + str(axis.shape).encode()
                if key not in self.axes:
                    self.axes[key] = torch.as_tensor(axis.copy(), device=self.device).long()
                keys.append(key)
            compiled.append((term.constant / term.divisor, keys))
        return compiled
