"""How much of a network may stay, and which widths each group may take."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..argument_checks import Wrong, number
from ..errors import BudgetError
from ..graph import DependencyGraph, Group, Polynomial
from ..messages import shown

Widths = dict[str, int]  # kept units of each group


LATENCY, SPEEDUP = "latency_ms", "speedup"


class Cost(Protocol):
    """What a forward pass takes on a runtime (see `structprune.cost`): milliseconds as a function of the widths."""

    @property
    def latency(self) -> Polynomial: ...

    @property
    def dense_ms(self) -> float: ...


@dataclass(frozen=True)
class Limit:
    """A budget in absolute numbers: what a plan may use of `name`. That of `speedup` is in milliseconds too."""

    name: str
    allowed: float
    dense: float

    def amount(self, used: float) -> str:
        return f"{used:.3g} ms" if self.name in (LATENCY, SPEEDUP) else f"{used:,.0f}"

    def text(self, used: float) -> str:
        return (
            f"{self.name} {self.dense / used:.4g} ({self.amount(used)})"
            if self.name == SPEEDUP
            else (f"{self.name} {self.amount(used)}")
        )

    def least(self, smallest: float) -> str:
        """What to ask for so that `smallest` is within it."""
        if self.name == SPEEDUP:
            return f"{self.name} <= {math.floor(100 * self.dense / smallest) / 100:.2f}"
        if self.name == LATENCY:
            return f"{self.name} >= {math.ceil(1000 * smallest) / 1000:g}"
        return f"{self.name} >= {smallest / self.dense + 0.0001:.4f}"


def read_budget(budget: Mapping[str, float], graph: DependencyGraph, cost: Cost | None = None) -> list[Limit]:
    """`{"macs": 0.5}` is a fraction of the dense network; a number over 1 is absolute. `channels` counts the units of
    all groups. `latency_ms` and `speedup` are as `cost` predicts them. Raises BudgetError."""
    if not isinstance(budget, Mapping):
        raise BudgetError(f'the budget is {shown(budget)}: give a mapping, for example {{"macs": 0.5}}')
    if not budget:
        raise BudgetError('the budget is empty: give macs, params or channels, for example {"macs": 0.5}')
    dense = {"macs": graph.macs(), "params": graph.params(), "channels": sum(g.units for g in graph.groups)}
    limits = []
    for name, value in budget.items():
        if not isinstance(name, str) or name not in (*dense, LATENCY, SPEEDUP):
            raise BudgetError(f"unknown budget {shown(name)}: it can be {', '.join((*dense, LATENCY, SPEEDUP))}")
        try:
            value = number(above=0)(value)
        except Wrong:
            raise BudgetError(
                f"budget {name}={shown(value)} is not an amount: give a fraction of the dense network (0.5) or an "
                "absolute number over 1"
            ) from None
        if name in dense:
            allowed = int(value * dense[name]) if value <= 1 else int(value)
            limits.append(Limit(name, max(allowed, 0.5), dense[name]))
            continue
        if cost is None:
            raise BudgetError(f"budget {name} needs the runtime's costs: give cost=structprune.cost.learn_cost(graph)")
        if name == SPEEDUP and value < 1:
            raise BudgetError(f"budget speedup={value!r} would be slower than dense: give a number over 1")
        limits.append(Limit(name, value if name == LATENCY else cost.dense_ms / value, cost.dense_ms))
    return limits


@dataclass(frozen=True)
class Choice:
    """The numbers of units that a group may keep, its `widths`, ascending; the last is the dense network's."""

    group: Group
    widths: np.ndarray

    def nearest(self, units: float) -> int:
        """The allowed number nearest to `units`; the smaller of two that are as near."""
        return int(self.widths[np.argmin(np.abs(self.widths - units))])

    def next_above(self, units: int) -> int | None:
        wider = self.widths[self.widths > units]
        return int(wider[0]) if len(wider) else None

    def next_below(self, units: int) -> int | None:
        narrower = self.widths[self.widths < units]
        return int(narrower[-1]) if len(narrower) else None


def choices(
    groups: Sequence[Group],
    scores: Mapping[str, np.ndarray],
    min_channels: int,
    max_ratio: float,
    align: int | Mapping[str, int],
    ignore: Sequence[str],
    whole: Collection[str] = (),
) -> list[Choice]:
    """Lists the numbers of units that each group may keep under the constraints.

    Args:
        groups: The groups.
        scores: For each group one score a unit, which decide what must stay where few may go.
        min_channels: The fewest channels of each layer that stay.
        max_ratio: The largest share of a group's units that may go, in (0, 1].
        align: What the leading layer's width is a multiple of, unless it is the dense width: one number, or one for
            each group.
        ignore: Globs of layers' paths or of groups' names: groups with such a layer, or of such a name, stay dense.
        whole: Names of groups that stay dense too.

    Returns:
        For each group the numbers of units that may stay, ascending; the dense number is always among them.

    Raises:
        BudgetError: A constraint makes no sense, or a glob matches no layer.
    """
    if min_channels < 1:
        raise BudgetError(f"min_channels={min_channels}: at least 1 channel of each layer must stay")
    if not 0 < max_ratio <= 1:
        raise BudgetError(f"max_ratio={max_ratio} is not a share of a layer: give a number in (0, 1]")
    multiple = {g.name: align if isinstance(align, int) else align.get(g.name, 1) for g in groups}
    if min(multiple.values(), default=1) < 1:
        raise BudgetError(f"align={align}: give 1 or more")
    if isinstance(ignore, str):
        raise BudgetError(f"ignore={ignore!r} is one string: give a list of globs, ignore=[{ignore!r}]")
    matched: set[str] = set()
    result = []
    for group in groups:
        layers = {s.key.rpartition(".")[0] or s.key for s in group.slices if s.role in ("filter", "passed")}
        layers.add(group.name)  # which of a layer's groups: blocks.0.attn.qkv:num_heads
        hits = {glob for glob in ignore for layer in layers if fnmatch.fnmatchcase(layer, glob)}
        matched |= hits
        widths = [group.units]
        if not hits and group.name not in whole:
            widths = _widths(group, scores[group.name], min_channels, max_ratio, multiple[group.name])
        result.append(Choice(group, np.array(widths)))
    unmatched = [glob for glob in ignore if glob not in matched]
    if unmatched:
        raise BudgetError(
            f"ignore: {unmatched[0]!r} matches no layer that can be pruned; layers are named as in `structprune "
            f"inspect`, for example {', '.join(group.name for group in groups[:3])}"
        )
    return result


def _widths(group: Group, scores: np.ndarray, min_channels: int, max_ratio: float, multiple: int) -> list[int]:
    """The numbers of units that may stay of a group that is not left whole, ascending."""
    must = np.bincount(group.strata, weights=group.must_stay(scores, min_channels))
    lost = group.steps(np.maximum(must, 1).astype(int)) * group.step
    least = max(group.units - math.floor(max_ratio * group.units), group.units - lost)

    def fits(kept: int) -> bool:
        channels = group.channels_of(kept)
        return group.allows(kept) and channels >= min_channels and channels % multiple == 0

    narrower = [kept for kept in range(group.units - group.step, least - 1, -group.step) if fits(kept)]
    return [*narrower[::-1], group.units]
