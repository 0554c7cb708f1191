"""Units whose filters are all zero, as training may leave them: whether a plan removes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..graph import DependencyGraph
from ..records import Plan
from .coupled import CoupledUnits, coupled_units


def zero_units(model: nn.Module, graph: DependencyGraph) -> dict[str, Tensor]:
    """Which units of each group have filters, all of them zero, by the group's name: booleans of shape (units,)."""
    return {group.name: _zero_units(group) for group in coupled_units(model, graph)}


def note_zero_units(graph: DependencyGraph, plan: Plan) -> list[str]:
    """A note where a plan keeps units whose filters are zero, as it ranks by something else or has room for them."""
    total, staying, displaced = 0, 0, False
    for name, zero in zero_units(graph.model, graph).items():
        stays = torch.ones(len(zero), dtype=torch.bool)
        if name in plan.groups:
            stays = torch.zeros_like(stays).index_fill(0, torch.tensor(plan.groups[name]["kept"]), True)
        total, staying = total + int(zero.sum()), staying + int((zero & stays).sum())
        displaced |= bool((zero & stays).any() and (~zero & ~stays).any())
    if not staying:
        return []
    why = (
        f"{plan.criterion} ranks others below them, and l1 or l2 would not"
        if displaced
        else "the budget and the multiples of widths leave room for them"
    )
    return [f"{staying} of the {total} units whose filters are zero stay: {why}"]


def _zero_units(group: CoupledUnits) -> Tensor:
    with torch.no_grad():
        filters = [part for part in group.parts if part.role == "filter"]
        sizes, counts = torch.zeros(group.units), torch.zeros(group.units)
        for part in filters:
            sizes += part.sums(part.parameter.abs()).cpu()
            counts += part.sums(torch.ones_like(part.parameter)).cpu()
        return (counts > 0) & (sizes == 0)
