"""Which multiples the widths of each group should be, given the multiples of a runtime."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping

from ..errors import BudgetError
from ..graph import DependencyGraph, Group
from ..graph.layers import KINDS, layer_kinds
from ..messages import unknown

Multiples = dict[str, int]  # channels between which a runtime gains nothing, for each of KINDS


def check_multiples(multiples: Mapping[str, int]) -> None:
    """Raises BudgetError unless multiples are whole numbers of at least 1 for some of KINDS."""
    for kind, multiple in multiples.items():
        if kind not in KINDS:
            raise BudgetError(unknown("kind of layer in align", str(kind), KINDS))
        if isinstance(multiple, bool) or not isinstance(multiple, numbers.Integral) or multiple < 1:
            raise BudgetError(f"align {kind}={multiple!r}: give a whole number of at least 1")


def aligned(graph: DependencyGraph, multiples: Mapping[str, int], share: int = 1) -> dict[str, int]:
    """For each group what its leading layer's width should be a multiple of, given the multiples of the layers on it.

    Runtimes pad each block of a grouped convolution on its own: where blocks choose their channels, the multiple is one
    of each block's width. `share` divides the multiples, for budgets that whole ones can't meet. Where the dense width
    is such a multiple and no narrower one, the group stays whole, as others are slower than that; where no width is,
    the group gets the largest part of the multiple that some width fits.
    """
    kinds = layer_kinds(graph)
    multiples_of_groups = {}
    for group in graph.groups:
        on = {kinds[s.key] for s in group.slices if s.role in ("filter", "passed", "consumer") and s.key in kinds}
        block = math.lcm(*(max(1, multiples.get(layer.kind, 1) // share) for layer in on)) if on else 1
        multiple = block * math.lcm(*(layer.blocks for layer in on)) if on else 1
        stays = multiple > block and group.channels % multiple == 0
        while multiple > 1 and group.channels > block and not stays and not _fits(group, multiple):
            multiple //= 2
        multiples_of_groups[group.name] = multiple
    return multiples_of_groups


def _fits(group: Group, multiple: int) -> bool:
    kept = range(group.units - group.step, 0, -group.step)
    return any(group.channels_of(units) % multiple == 0 for units in kept if group.channels_of(units) > 0)
