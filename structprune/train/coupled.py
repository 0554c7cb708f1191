"""The units of a network's groups as parts of its parameters, for methods that push coupled channels together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..graph import DependencyGraph, Slice, trace
from ..modules import tensors, walk
from ..ops import Inputs
from ..typing import Form


@dataclass(frozen=True)
class Part:
    """What a group has of one parameter.

    Attributes:
        parameter: the parameter itself, which training changes.
        dim: the axis that the group's units are on.
        index: (positions, k) on the parameter's device: the units on each position, -1 for none.
        role: as of `graph.Slice`.
        units: how many units the group has.
    """

    parameter: nn.Parameter
    dim: int
    index: Tensor
    role: str
    units: int

    def positions(self, values: Tensor) -> Tensor:
        """`values`, of the parameter's shape, as (positions, rest); those of grouped blocks follow each other."""
        size = self.parameter.shape[self.dim]
        if len(self.index) != size:
            blocks = len(self.index) // size
            apart = values.reshape(blocks, -1, *values.shape[1:])
            return apart.movedim(self.dim + 1, 1).flatten(0, 1).flatten(1)
        return values.movedim(self.dim, 0).flatten(1) if values.dim() > 1 else values[:, None]

    def sums(self, values: Tensor) -> Tensor:
        """Sums of `values`, of the parameter's shape, over what each unit has: (units,). Gradients go through."""
        rows = self.positions(values).sum(1)
        total = rows.new_zeros(self.units)
        for column in self.index.T:
            there = column >= 0
            total = total.index_add(0, column[there], rows[there])
        return total

    def spread(self, values: Tensor, combine: Callable[[Tensor], Tensor] = lambda each: each.sum(1)) -> Tensor:
        """A value a unit (units,) at each place of the parameter, as a tensor that its shape takes.

        `combine` makes one of those of several units on one position, (positions, k) with 0 for none.
        """
        each = torch.where(self.index >= 0, values[self.index.clamp_min(0)], 0.0)
        rows = combine(each)
        size, shape = self.parameter.shape[self.dim], [1] * self.parameter.dim()
        shape[self.dim] = size
        if len(rows) == size:
            return rows.reshape(shape)
        blocks = len(rows) // size
        shape[0] = blocks
        return rows.reshape(shape).repeat_interleave(self.parameter.shape[0] // blocks, 0)


@dataclass(frozen=True)
class CoupledUnits:
    """A group while its network trains: its name, its number of units, and what it has of which parameter."""

    name: str
    units: int
    parts: tuple[Part, ...]

    def squares(self, roles: Iterable[str] = ("filter", "passed")) -> Tensor:
        """The sum of squares of what each unit has of the weights in these roles: (units,)."""
        chosen = [part for part in self.parts if part.role in tuple(roles)]
        return torch.stack([part.sums(part.parameter.square()) for part in chosen]).sum(0)

    def elements(self, roles: Iterable[str] = ("filter", "passed")) -> float:
        """How many weights a unit has in these roles, in the mean."""
        chosen = [part for part in self.parts if part.role in tuple(roles)]
        return sum(float(part.sums(torch.ones_like(part.parameter)).sum()) for part in chosen) / self.units


def trace_trained(model: nn.Module, example: Inputs, form: Form = "module") -> DependencyGraph:
    """The graph of a network that is being trained, whose modes stay as they are."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        return trace(model.eval(), example, form)
    finally:
        for module, mode in modes:
            module.training = mode


def coupled_units(model: nn.Module, graph: DependencyGraph) -> list[CoupledUnits]:
    """The groups of a graph as parts of the parameters of `model`, in the graph's order."""
    parameters = {key: tensor for key, tensor in tensors(model).items() if isinstance(tensor, nn.Parameter)}
    return [
        CoupledUnits(
            group.name,
            group.units,
            tuple(
                _part(parameters[piece.key], piece, group.units) for piece in group.slices if piece.key in parameters
            ),
        )
        for group in graph.groups
    ]


def coupled_scales(model: nn.Module, graph: DependencyGraph) -> list[CoupledUnits]:
    """The same of the scales γ of BatchNorms alone; groups without one are left out."""
    scales = {id(module.weight) for _, module in walk(model) if isinstance(module, _BatchNorm) and module.affine}
    groups = []
    for group in coupled_units(model, graph):
        parts = tuple(part for part in group.parts if id(part.parameter) in scales)
        if parts:
            groups.append(CoupledUnits(group.name, group.units, parts))
    return groups


def _part(parameter: nn.Parameter, piece: Slice, units: int) -> Part:
    index = torch.tensor(piece.index, dtype=torch.long, device=parameter.device)
    return Part(parameter, piece.dim, index, piece.role, units)
