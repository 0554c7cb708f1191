"""Comparisons by which the model's own code chooses its path at one width or another.

The probe runs a model at two widths, and code may branch at a third (`if x.shape[1] % 8 == 0`). So each comparison of
sizes and attributes that was noted while recording is worked out for the widths that a plan may choose; where its
outcome would change, the plan gets only widths at which it does not, or the channels that it looks at stay.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ..ops import Captured
from ..ops.conditions import Condition
from ..ops.provenance import Read, Size, Source, evaluate, leaves
from .attributes import axes_of_sources
from .axes import alive
from .channels import ChannelGraph
from .group import Group
from .removal import mark_removed
from .values import Value

MOST_WIDTHS = 1024  # of several groups, at which one comparison is worked out: all there are, else drawn at random


@dataclass(frozen=True)
class Followed:
    """A number in a comparison that follows channels: the positions left on `axis`, over `divisor`."""

    axis: np.ndarray
    divisor: int = 1


def decided(
    graph: ChannelGraph,
    captured: Captured,
    values: Mapping[str, Any],
    trial: Captured,
    kept: Mapping[str, np.ndarray],
) -> dict[Size | Source | Condition, Condition]:
    """The comparisons that would come out otherwise at some widths: each under itself where it leaves one group several
    widths (see `restrict`), else under each size and attribute in it, whose channels must stay.

    `trial` was recorded with only `kept` left of each group. What it compared tells whether an expression is the whole
    truth: a number that the code took out of its sight (`int(x.shape[1])`) has none.
    """
    sources = axes_of_sources(graph)
    removed = mark_removed(graph, kept)
    conditions: dict[Size | Source | Condition, Condition] = {}
    tests: set[Any] = set()
    for condition, again in zip(captured.conditions, trial.conditions, strict=False):
        if (condition.line, condition.test[0]) != (again.line, again.test[0]):
            break
        live = dict(_live(condition, graph, values, sources))
        test = _canonical(condition.test, live)
        if not live or test in tests or test[1] == test[2]:
            continue
        tests.add(test)
        whole = _outcome(condition, live, removed) == again.outcome
        if whole and _outcome(condition, live, None) == condition.outcome:
            groups, counts = _counts(graph, condition, live)
            if not all(counts.values()):
                several = len(groups) == 1 and sum(counts.values()) > 1
                conditions |= {condition: condition} if several else dict.fromkeys(live, condition)
        elif again.outcome != condition.outcome:
            conditions |= dict.fromkeys(live, condition)
    return conditions


Graph = TypeVar("Graph", bound=ChannelGraph)


def restrict(graph: Graph, conditions: Iterable[Condition], values: Mapping[str, Any]) -> Graph:
    """The graph whose groups take only the widths at which comparisons come out as they did when they were recorded."""
    sources = axes_of_sources(graph)
    for condition in conditions:
        live = dict(_live(condition, graph, values, sources))
        if not live:
            continue
        groups, counts = _counts(graph, condition, live)
        for group in groups:
            several = len(groups) == 1 or all(counts.values())
            widths = [n for (n, *_), holds in counts.items() if holds] if several else [group.units]
            graph = _allowing(graph, group.name, widths)
    return graph


def _allowing(graph: Graph, name: str, widths: Iterable[int]) -> Graph:
    """The same, but one group keeps all its units or so many, of the numbers that it could keep before."""
    group = graph.group(name)
    narrower = replace(group, allowed=frozenset(n for n in (*widths, group.units) if group.allows(n)))
    return replace(graph, groups=tuple(narrower if other is group else other for other in graph.groups))


def reason(condition: Condition) -> str:
    """Why the channels stay."""
    return f"the model's code compares their number ({_text(condition.test)}), and takes another path at others"


def kept_widths(condition: Condition) -> str:
    """What a plan keeps, for a note."""
    return f"plans keep to the widths at which `{_text(condition.test)}` stays {condition.outcome}"


def _live(
    condition: Condition,
    graph: ChannelGraph,
    values: Mapping[str, Any],
    sources: Mapping[Source, tuple[np.ndarray, int]],
) -> Iterator[tuple[Size | Source, Followed]]:
    """The numbers in a comparison that change when channels go."""
    for leaf in leaves(condition.test):
        axis, divisor = None, 1
        if isinstance(leaf, Size):
            value = values.get(leaf.node)
            if isinstance(value, Value) and leaf.dim < len(value.shape) and value.shape[leaf.dim] == leaf.value:
                units = value.axes[leaf.dim]
                axis = None if units is None else graph.classes_of(units)
        elif isinstance(leaf, Source) and leaf in sources:
            axis, divisor = sources[leaf]
        if axis is not None and graph.in_group[axis].any():
            assert not isinstance(leaf, Read)
            yield leaf, Followed(axis, divisor)


def _canonical(test: Any, live: Mapping[Any, Followed]) -> Any:
    """The same expression with what each number counts in its stead, so that equal counts are equal."""
    if isinstance(test, (Size, Source)):
        return (live[test].axis.tobytes(), live[test].divisor) if test in live else getattr(test, "value", test)
    if isinstance(test, tuple) and len(test) == 3 and callable(test[0]):
        return test[0], _canonical(test[1], live), _canonical(test[2], live)
    return test


def _outcome(condition: Condition, live: Mapping[Any, Followed], removed: np.ndarray | None) -> bool | None:
    """What a comparison comes to after a removal; None where it can't be worked out."""
    numbers: dict[Any, int] = {}
    for leaf in leaves(condition.test):
        if leaf in live:
            axis = live[leaf].axis
            numbers[leaf] = int(len(axis) if removed is None else alive(axis, removed).sum()) // live[leaf].divisor
        elif isinstance(leaf, Size):
            numbers[leaf] = leaf.value
    try:
        return bool(evaluate(condition.test, numbers))
    except (ArithmeticError, KeyError):
        return None


def _counts(
    graph: ChannelGraph, condition: Condition, live: Mapping[Any, Followed]
) -> tuple[list[Group], dict[tuple[int, ...], bool]]:
    """The groups that the numbers in a comparison follow, and for each choice of how many of their units stay whether
    it comes out as it did when it was recorded, whichever units these are."""
    touched = np.unique(np.concatenate([followed.axis.ravel() for followed in live.values()]))
    groups = [group for group in graph.groups if np.isin(group.ids, touched).any()]
    widths = [range(group.units - group.removable, group.units + 1, group.step) for group in groups]
    rng = np.random.default_rng(0)
    every: Iterable[tuple[int, ...]] = itertools.product(*widths)
    if len(groups) > 1 and math.prod(map(len, widths)) > MOST_WIDTHS:
        drawn = [tuple(int(rng.choice(w)) for w in widths) for _ in range(MOST_WIDTHS)]
        # through two of them, all widths of each group: an equality holds on a line, which draws seldom hit
        lines = ((*at[:i], n, *at[i + 1 :]) for at in drawn[:2] for i, w in enumerate(widths) for n in w)
        every = itertools.chain(itertools.product(*((w[0], w[-1]) for w in widths)), drawn, lines)
    result: dict[tuple[int, ...], bool] = {}
    for counts in every:
        result[counts] = all(
            _outcome(condition, live, mark_removed(graph, dict(some))) == condition.outcome
            for some in _some(groups, counts, rng)
        )
    return groups, result


def _some(
    groups: list[Group], counts: tuple[int, ...], rng: np.random.Generator
) -> Iterator[Iterator[tuple[str, np.ndarray]]]:
    """So many units of each group: the first ones, and any."""
    pairs = list(zip(groups, counts, strict=True))
    yield ((group.name, group.best(-np.arange(group.units, dtype=float), n)) for group, n in pairs)
    yield ((group.name, group.best(rng.random(group.units), n)) for group, n in pairs)


_SIGNS = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "mod": "%",
    "mul": "*",
    "floordiv": "//",
    "truediv": "/",
    "add": "+",
    "sub": "-",
    "pow": "**",
}


def _text(expression: Any) -> str:
    if isinstance(expression, Size):
        return f"shape[{expression.dim}]"
    if isinstance(expression, Source):
        return expression.name if expression.place is None else f"{expression.name}[{expression.place}]"
    if isinstance(expression, tuple):
        sign = _SIGNS.get(expression[0].__name__, expression[0].__name__)
        return f"{_text(expression[1])} {sign} {_text(expression[2])}"
    return str(expression)
