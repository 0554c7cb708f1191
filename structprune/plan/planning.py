"""`plan`: budget, allocation and ranking put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import BudgetError, PlanError, RecipeError
from ..graph import DependencyGraph, Group, Tally
from ..modules import tensors
from ..names import unknown
from ..records import Plan, Scores, Sensitivity
from .allocation import ALLOCATIONS
from .budget import Limit, Widths, choices, read_budget


def plan(
    graph: DependencyGraph,
    scores: Scores,
    budget: Mapping[str, float],
    *,
    allocation: str = "uniform",
    min_channels: int = 1,
    max_ratio: float = 0.9,
    align: int = 1,
    ignore: Sequence[str] = (),
    sensitivity: Sensitivity | None = None,
) -> Plan:
    """Chooses the units that stay: in each group the ones of highest score, as many as the allocation gives it.

    `budget` maps `macs`, `params` or `channels` (or several) to what may stay: a fraction of the dense network, or an
    absolute number over 1. `min_channels`, `max_ratio`, `align` and `ignore` bound each group (see `budget.choices`).
    `sensitivity` (structprune.sensitivity) is for the allocation of that name. Groups that the scores leave out stay
    whole. The plan never exceeds the budget; where it ends more than 1 % below, `notes` says why and how near it came.
    Raises BudgetError if no plan can meet the budget.
    """
    if allocation not in ALLOCATIONS:
        raise RecipeError(unknown("allocation", allocation, ALLOCATIONS))
    limits = read_budget(budget, graph)
    values = {**scores.values, **{g.name: np.zeros(g.units) for g in graph.groups if g.name in scores.unscored}}
    missing = [group.name for group in graph.groups if len(values.get(group.name, ())) != group.units]
    if missing:
        raise PlanError(f"the scores do not cover group {missing[0]}: score the graph that you plan for")
    options = choices(graph.groups, values, min_channels, max_ratio, align, ignore, scores.unscored)

    ranked = {g.name: g.ranked(values[g.name], min_channels) for g in graph.groups}
    chosen: dict[tuple[str, int], np.ndarray] = {}

    def best(group: Group, count: int) -> np.ndarray:
        if (group.name, count) not in chosen:
            chosen[group.name, count] = group.best(ranked[group.name], count)
        return chosen[group.name, count]

    by_name = {g.name: g for g in graph.groups}
    tally = Tally(graph, lambda name, count: best(by_name[name], count))

    def used(widths: Widths) -> dict[str, int]:
        counts = {**tally.count(widths), "channels": sum(widths.values())}
        return {limit.name: counts[limit.name] for limit in limits}

    def load(widths: Widths) -> float:
        counts = used(widths)
        return max(counts[limit.name] / max(limit.allowed, 0.5) for limit in limits)

    narrowest = {c.group.name: int(c.widths[0]) for c in options}
    constraints = {"min_channels": min_channels, "max_ratio": max_ratio, "align": align, "ignore": list(ignore)}
    if load(narrowest) > 1:
        raise BudgetError(_out_of_reach(limits, used(narrowest), constraints, graph))
    if scores.widths is None:
        given = scores if sensitivity is None else dataclasses.replace(scores, sensitivity=sensitivity)
        widths = ALLOCATIONS[allocation](options, given, load)
    else:  # for which the groups were ranked one after the other
        widths = {g.name: scores.widths.get(g.name, g.units) for g in graph.groups}
        for choice in options:
            width, group = widths[choice.group.name], choice.group
            if width not in choice.widths:
                raise PlanError(
                    f"{scores.criterion} ranked group {group.name} for {width} of its {group.units} units, which these "
                    "constraints do not allow: score anew, with the widths of a plan under the same constraints"
                )
    if load(widths) > 1:
        whose = f"that {scores.criterion} ranked for" if scores.widths else f"of allocation {allocation}"
        raise PlanError(
            f"the widths {whose} are over the budget, with {len(scores.unscored)} groups that can't be scored and stay "
            "whole: allow more, or choose another criterion or allocation"
        )

    kept = {g.name: best(g, widths[g.name]) for g in graph.groups}
    keep = graph.keep(kept)
    state = tensors(graph.model)
    result = Plan(
        criterion=scores.criterion,
        allocation=allocation,
        budget=dict(budget),
        constraints=constraints,
        groups={g.name: {"units": g.units, "kept": kept[g.name].tolist()} for g in graph.groups},
        keep=keep,
        shapes={key: list(state[key].shape) for key in keep},
        attributes=graph.attributes(kept),
        statistics=graph.statistics(kept),
        program=graph.program(kept),
        macs={"dense": graph.macs(), "slim": graph.macs(kept)},
        macs_by_operator={"dense": graph.macs_by_operator(), "slim": graph.macs_by_operator(kept)},
        params={"dense": graph.params(), "slim": graph.params(kept)},
    )
    result.notes = scores.notes + _notes(limits, result, constraints)
    return result


def _out_of_reach(limits: list[Limit], least: dict[str, int], constraints: dict, graph: DependencyGraph) -> str:
    limit = max(limits, key=lambda limit: least[limit.name] / max(limit.allowed, 0.5))
    smallest = least[limit.name]
    if smallest == limit.dense:
        barriers = f": {len(graph.barriers)} barriers keep every channel" if graph.barriers else ""
        return f"budget {limit.name} {limit.allowed:,} can't be met: nothing can be removed from this network{barriers}"
    reason = ", ".join(f"{key}={value}" for key, value in constraints.items() if value)
    barriers = f" and {len(graph.barriers)} barriers (see `structprune inspect`)" if graph.barriers else ""
    return (
        f"budget {limit.name} {limit.allowed:,} ({limit.allowed / limit.dense:.4f} of the dense {limit.dense:,}) "
        f"can't be met: with {reason}{barriers} the smallest network has {smallest:,} ({smallest / limit.dense:.4f}). "
        f"Ask for {limit.name} >= {smallest / limit.dense + 0.0001:.4f}, or loosen the constraints"
    )


def _notes(limits: list[Limit], plan: Plan, constraints: dict) -> list[str]:
    reached = {"macs": plan.macs["slim"], "params": plan.params["slim"], "channels": sum(plan.widths.values())}
    nearest = max(limits, key=lambda limit: reached[limit.name] / limit.allowed)
    share = reached[nearest.name] / nearest.allowed
    if share >= 0.99:
        return []
    whole = plan.macs["slim"] == plan.macs["dense"]
    why = (
        "nothing needs to be pruned"
        if whole
        else f"widths move in steps (align={constraints['align']}), and the next wider plan is over the budget"
    )
    return [
        f"{nearest.name} ends at {reached[nearest.name]:,}, {100 * (1 - share):.1f} % below the budget of "
        f"{nearest.allowed:,}: {why}"
    ]
