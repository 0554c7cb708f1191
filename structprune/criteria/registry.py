"""The registry of criteria, what a criterion sees of a group, and `score`, which runs one over a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError, RecipeError
from ..graph import DependencyGraph, Group
from ..modules import tensors
from ..names import unknown
from ..records import Scores


@dataclass(frozen=True)
class Weights:
    """One parameter of a group and the axis that the group controls.

    `index` has shape (positions, k) and gives the group's units on each position of axis `dim` of `tensor`,
    -1 for none. `role` is filter, passed, consumer, norm, bias or other (see `graph.flow.Flow`).
    """

    key: str
    dim: int
    role: str
    index: Tensor
    tensor: Tensor

    def sums(self, values: Tensor) -> Tensor:
        """Sums of `values`, of the tensor's own shape, over all but axis `dim`: shape (positions,)."""
        if len(self.index) != self.tensor.shape[self.dim]:
            blocks = len(self.index) // self.tensor.shape[self.dim]
            apart = values.reshape(blocks, -1, *values.shape[1:])
            return apart.sum([d for d in range(apart.dim()) if d not in (0, self.dim + 1)]).flatten()
        return values.sum([d for d in range(values.dim()) if d != self.dim]) if values.dim() > 1 else values

    def positions(self) -> Tensor:
        """The tensor with axis `dim` first and the rest flattened: shape (positions, everything else).

        Where blocks of axis 0 keep positions of their own (grouped convolutions), those of all blocks in turn.
        """
        if len(self.index) != self.tensor.shape[self.dim]:
            blocks = len(self.index) // self.tensor.shape[self.dim]
            apart = self.tensor.reshape(blocks, -1, *self.tensor.shape[1:])
            return apart.movedim(self.dim + 1, 1).flatten(0, 1).flatten(1)
        return self.tensor.movedim(self.dim, 0).flatten(1) if self.tensor.dim() > 1 else self.tensor[:, None]


@dataclass(frozen=True)
class GroupView:
    """What a criterion sees: a group's name, its number of units and its weights, leading layer first."""

    name: str
    units: int
    weights: tuple[Weights, ...]

    def per_unit(self, weights: Weights, values: Tensor) -> Tensor:
        """Sums a value for each position, shape (positions,), over the positions of each unit: (units,)."""
        total = torch.zeros(self.units, dtype=torch.float64)
        for column in weights.index.T:
            total.index_add_(0, column[column >= 0], values[column >= 0].double().cpu())
        return total


CriterionFunction = Callable[[GroupView], Tensor]


@dataclass(frozen=True)
class Criterion:
    """A registered criterion: its name, the function from a group to one score a unit, and one line on it."""

    name: str
    function: CriterionFunction
    description: str


CRITERIA: dict[str, Criterion] = {}


def criterion(name: str, description: str) -> Callable[[CriterionFunction], CriterionFunction]:
    """Registers a criterion under a name that recipes can use; a name that is taken raises ValueError."""

    def register(function: CriterionFunction) -> CriterionFunction:
        if name in CRITERIA:
            raise ValueError(f"a criterion named {name!r} is registered already")
        CRITERIA[name] = Criterion(name, function, description)
        return function

    return register


def score(graph: DependencyGraph, criterion: str | CriterionFunction) -> Scores:
    """Scores every unit of every group: low scores go first.

    `criterion` is a registered name or a function from a `GroupView` to a tensor of shape (units,).
    Raises RecipeError for an unknown name and ModelError where weights or scores are not finite.
    """
    if callable(criterion):
        function, name = criterion, getattr(criterion, "__name__", type(criterion).__name__)
    else:
        if criterion not in CRITERIA:
            raise RecipeError(unknown("criterion", criterion, CRITERIA))
        function, name = CRITERIA[criterion].function, criterion
    state = {key: tensor.detach() for key, tensor in tensors(graph.model).items()}
    values = {}
    with torch.no_grad():
        for group in graph.groups:
            view = _view(group, state)
            result = torch.as_tensor(function(view)).detach().double().cpu()
            if tuple(result.shape) != (group.units,):
                raise RecipeError(
                    f"criterion {name!r} gave shape {tuple(result.shape)} for group {group.name}, which has "
                    f"{group.units} units: return a tensor of shape ({group.units},)"
                )
            if not torch.isfinite(result).all():
                raise ModelError(_not_finite(name, view))
            values[group.name] = result.numpy()
    return Scores(name, values)


def _view(group: Group, state: dict[str, Tensor]) -> GroupView:
    weights = tuple(
        Weights(s.key, s.dim, s.role, torch.from_numpy(np.ascontiguousarray(s.index)), state[s.key])
        for s in group.slices
    )
    return GroupView(group.name, group.units, weights)


def _not_finite(name: str, view: GroupView) -> str:
    bad = [w.key for w in view.weights if not torch.isfinite(w.tensor).all()]
    if bad:
        return f"{bad[0]} holds NaN or infinite values, so its filters cannot be ranked: load sound weights"
    return f"criterion {name!r} gave scores that are not finite for group {view.name}"
