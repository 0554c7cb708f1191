"""`plan`: budget, allocation and ranking put together."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np

from ..argument_checks import checked, instance, number, one_of, optional, several, whole
from ..errors import BudgetError, PlanError
from ..graph import DependencyGraph, WidthCounter
from ..graph.attributes import slim_attributes
from ..graph.program import write_program
from ..graph.removal import cut_statistics, kept_positions
from ..messages import shown
from ..modules import tensors
from ..plan_schema import Constraints
from ..records import Plan, Scores, Sensitivity
from ..typing import AllocationName, Budget
from .alignment import aligned, check_multiples
from .allocations import Allocate, Allocation, Load, allocation_of
from .argument_checks import align_option, check_needs, check_scores, cost_option
from .budget import LATENCY, SPEEDUP, Choice, Cost, Limit, Widths, choices, read_budget
from .stale_configurations import stale_configurations


@checked(
    BudgetError,
    graph=instance(DependencyGraph, "what structprune.trace gives"),
    scores=instance(Scores, "what structprune.score gives"),
    min_channels=whole(),
    max_ratio=number(),
    align=align_option,
    ignore=several(instance(str, ""), "a list of globs of layers' names"),
    sensitivity=optional(instance(Sensitivity, "what structprune.sensitivity gives")),
    cost=optional(cost_option),
    surgery=one_of("drop", "merge"),
)
def plan(
    graph: DependencyGraph,
    scores: Scores,
    budget: Budget,
    *,
    allocation: AllocationName | str | Allocate | Allocation = "uniform",
    min_channels: int = 1,
    max_ratio: float = 0.9,
    align: int | Mapping[str, int] | Literal["auto"] = "auto",
    ignore: Sequence[str] = (),
    sensitivity: Sensitivity | None = None,
    cost: Cost | None = None,
    surgery: Literal["drop", "merge"] = "drop",
) -> Plan:
    """Chooses the units that stay: in each group the ones of highest score, as many as the allocation gives it.

    The plan never exceeds the budget; where it ends more than 1 % below, `notes` says why and how near it came. Groups
    that the scores leave out stay whole.

    Args:
        graph: what `trace` gives.
        scores: what `score` gives of it.
        budget: `macs`, `params` or `channels` (or several) to what may stay: a fraction of the dense network, or an
            absolute number over 1; `latency_ms` and `speedup` (how many times faster) as `cost` predicts them.
        allocation: how the budget is shared among groups: a name, or a function from choices, scores and load to the
            number of units that each group keeps (see CONTRIBUTING.md).
        min_channels: how many channels of each layer stay at least.
        max_ratio: the largest share of a group's units that goes.
        align: what widths are multiples of: one number (1: any width), or a runtime's multiples by kind of layer
            (structprune.cost.learn_multiples). "auto": those of `cost`, or of this machine's onnxruntime (see
            structprune.cost.standard_multiples). If they can't meet the budget, they are halved; `notes` says so.
        ignore: globs of layers, or of groups' names, that stay whole.
        sensitivity: what structprune.sensitivity gives, for the allocations that weigh measured losses. Without it
            `knapsack` keeps the most importance, which is not quality: sensitivity(graph, scores) needs no data.
        cost: what structprune.cost.learn_cost gives, for budgets of latency.
        surgery: "drop", or "merge": of each cluster of like units one stays, which computes their mean, with the sum
            of their consumers' columns. As many stay as otherwise; groups that can't be merged are dropped from.

    Returns:
        What of which group, parameter and buffer stays, and what that comes to: plain data.

    Raises:
        BudgetError: no plan can meet the budget, or an option makes no sense.
        PlanError: the scores are not of this graph.
        RecipeError: there is no such allocation.

    Example:
        >>> plan = sp.plan(graph, scores, budget={"macs": 0.5}, align=1)
        >>> plan.macs["slim"] / plan.macs["dense"] <= 0.5
        True
    """
    chosen = allocation_of(allocation)
    limits = read_budget(cast(Mapping[str, float], budget), graph, cost)
    amounts: dict[str, float] = {name: number()(amount) for name, amount in budget.items()}  # no NumPy scalars
    scores = check_scores(graph, _with(scores, sensitivity), chosen)
    check_needs(chosen, scores, cost)
    align, notes = (align, ()) if align != "auto" else _standard(cost)
    constraints = Constraints(min_channels=min_channels, max_ratio=max_ratio, align=_plain(align), ignore=list(ignore))
    plan = _Planning(graph, scores, limits, amounts, chosen, constraints, cost).in_multiples(align, notes)
    return plan if surgery == "drop" else _merging(graph, plan)


def _merging(graph: DependencyGraph, plan: Plan) -> Plan:
    """The plan that merges what another drops."""
    from .merging import merge  # which needs this module

    return merge(graph, plan)


def _with(scores: Scores, sensitivity: Sensitivity | None) -> Scores:
    return scores if sensitivity is None else dataclasses.replace(scores, sensitivity=sensitivity)


def _standard(cost: Cost | None) -> tuple[Mapping[str, int], Sequence[str]]:
    """The multiples that are taken unasked, and what is to be said of them."""
    from ..cost.standard import standard_multiples  # which needs this package

    if multiples := getattr(cost, "multiples", None):
        return multiples, ()
    standard = standard_multiples()
    return standard.steps, standard.notes


def _plain(align: int | Mapping[str, int]) -> int | dict[str, int]:
    """What widths are multiples of, as a plan holds it. Raises BudgetError for multiples that are none."""
    if not isinstance(align, Mapping):
        return int(align)
    check_multiples(align)
    return {kind: int(multiple) for kind, multiple in align.items()}


@dataclasses.dataclass(frozen=True)
class _Planning:
    """What a plan is asked for: of which graph, by which scores, within which limits and constraints."""

    graph: DependencyGraph
    scores: Scores
    limits: list[Limit]
    budget: dict[str, float]
    allocation: Allocation
    constraints: Constraints
    cost: Cost | None

    def in_multiples(self, align: int | Mapping[str, int], notes: Sequence[str]) -> Plan:
        """The plan in whole multiples; where those can't meet the budget in halves of them, and so on, with a note."""
        shares = [1]
        if isinstance(align, Mapping):
            shares = [2**i for i in range(int(max(align.values(), default=1)).bit_length())]
        for share in shares:
            choices = self._choices(aligned(self.graph, align, share) if isinstance(align, Mapping) else int(align))
            try:
                plan = self._plan(choices)
            except (BudgetError, PlanError):
                if share == shares[-1]:
                    raise
                continue
            coarse = f"whole multiples of the runtime can't meet the budget: widths are in 1/{share} of them"
            plan.notes += [*notes, *([coarse] if share > 1 else [])]
            return plan
        raise AssertionError("the last share returns or raises")

    def _choices(self, multiples: int | Mapping[str, int]) -> list[Choice]:
        ignore, unscored = self.constraints["ignore"], self.scores.unscored
        least, most = self.constraints["min_channels"], self.constraints["max_ratio"]
        return choices(self.graph.groups, self._values, least, most, multiples, ignore, unscored)

    @functools.cached_property
    def _values(self) -> dict[str, np.ndarray]:
        """The scores of all groups: zeros for those that can't be scored."""
        unscored = {g.name: np.zeros(g.units) for g in self.graph.groups if g.name in self.scores.unscored}
        return {**self.scores.values, **unscored}

    def _plan(self, options: list[Choice]) -> Plan:
        """The plan by these widths. Raises BudgetError and PlanError where it can't be within the budget."""
        graph, scores, limits, cost = self.graph, self.scores, self.limits, self.cost
        ranking = _Ranking(graph, self._values, self.constraints["min_channels"])
        counter = WidthCounter(graph, ranking.best, {} if cost is None else {LATENCY: cost.latency})

        def used(widths: Widths) -> dict[str, float]:
            counts = {**counter.count(widths), "channels": sum(widths.values())}
            counts[SPEEDUP] = counts.get(LATENCY, 0.0)
            return {limit.name: counts[limit.name] for limit in limits}

        def shares(widths: Widths) -> np.ndarray:
            counts = used(widths)
            return np.array([counts[limit.name] / limit.allowed for limit in limits])

        load = Load(shares, cost)
        narrowest = {choice.group.name: int(choice.widths[0]) for choice in options}
        if load(narrowest) > 1:
            whole = all(narrowest[group.name] == group.units for group in graph.groups)
            raise BudgetError(_out_of_reach(limits, used(narrowest), self.constraints, graph, whole))
        if scores.widths is None:
            widths = _allocated(self.allocation, options, scores, load)
        else:
            widths = _ranked_for(graph, options, scores)
        if load(widths) > 1:
            whose = f"that {scores.criterion} ranked for" if scores.widths else f"of allocation {self.allocation.name}"
            raise PlanError(
                f"the widths {whose} are over the budget, with {len(scores.unscored)} groups that can't be scored and "
                "stay whole: allow more, or choose another criterion or allocation"
            )
        kept = {name: ranking.best(name, width) for name, width in widths.items()}
        plan = realise(graph, kept, scores.criterion, self.allocation.name, self.budget, self.constraints)
        if cost is not None:
            plan.latency = {"dense": cost.dense_ms, "slim": counter.count(widths)[LATENCY]}
        notes = _notes(limits, used(widths), plan, self.constraints)
        plan.notes = [*graph.notes, *plan.notes, *scores.notes, *notes]
        plan.notes += stale_configurations(graph.model, plan)
        return plan


class _Ranking:
    """Which units of each group stay, for each number of them."""

    def __init__(self, graph: DependencyGraph, values: Mapping[str, np.ndarray], min_channels: int) -> None:
        self._groups = {group.name: group for group in graph.groups}
        self._scores = {name: group.ranked(values[name], min_channels) for name, group in self._groups.items()}
        self._known: dict[tuple[str, int], np.ndarray] = {}

    def best(self, name: str, count: int) -> np.ndarray:
        if (name, count) not in self._known:
            self._known[name, count] = self._groups[name].best(self._scores[name], count)
        return self._known[name, count]


def _ranked_for(graph: DependencyGraph, options: list[Choice], scores: Scores) -> Widths:
    """The widths for which the groups were ranked one after the other."""
    assert scores.widths is not None
    widths = {group.name: scores.widths.get(group.name, group.units) for group in graph.groups}
    for choice in options:
        width, group = widths[choice.group.name], choice.group
        if width not in choice.widths:
            raise PlanError(
                f"{scores.criterion} ranked group {group.name} for {width} of its {group.units} units, which these "
                "constraints do not allow: score anew, with the widths of a plan under the same constraints"
            )
    return widths


def _allocated(allocation: Allocation, options: list[Choice], scores: Scores, load: Load) -> Widths:
    """What an allocation gives, once it is known to be one of the widths of each group."""
    widths = allocation.allocate(options, scores, load)
    if not isinstance(widths, Mapping):
        raise PlanError(
            f"allocation {allocation.name} gave {shown(widths)}: it must return the width of each group, by name"
        )
    for choice in options:
        width = widths.get(choice.group.name)
        if not isinstance(width, numbers.Integral) or int(width) not in choice.widths:
            raise PlanError(
                f"allocation {allocation.name} gave {shown(width)} units to group {choice.group.name}, which may keep "
                f"{shown(choice.widths.tolist())}"
            )
    return {choice.group.name: int(widths[choice.group.name]) for choice in options}


def realise(
    graph: DependencyGraph,
    kept: Mapping[str, np.ndarray],
    criterion: str = "",
    allocation: str = "",
    budget: Mapping[str, float] | None = None,
    constraints: Constraints | None = None,
) -> Plan:
    """Makes the plan in which each group keeps certain units.

    Args:
        graph: The dependency graph of the dense network.
        kept: For each group the numbers of the units that stay, ascending.
        criterion: What ranked them, for the plan's record.
        allocation: What shared the budget, for the plan's record.
        budget: What was asked for, for the plan's record.
        constraints: What the widths were held to, for the plan's record.

    Returns:
        The plan, with what stays of each tensor, and MACs and parameters of both networks.

    Raises:
        PlanError: With so many units of a group, the model's code takes another path.
    """
    stays = dict(kept)
    for group in graph.groups:
        if group.name in stays and not group.allows(len(stays[group.name])):
            raise PlanError(
                f"group {group.name} can't keep {len(stays[group.name])} of its {group.units} units: there the model's "
                f"code takes another path. Keep one of {sorted(group.allowed or ())}"
            )
    keep, state = kept_positions(graph, stays), tensors(graph.model)
    program = write_program(graph, stays) if graph.form == "graph" else None
    return Plan(
        criterion=criterion,
        allocation=allocation,
        budget=dict(budget or {}),
        constraints={**constraints} if constraints else {},
        groups={g.name: {"units": g.units, "kept": stays[g.name].tolist()} for g in graph.groups},
        keep=keep,
        shapes={key: list(state[key].shape) for key in keep},
        attributes=slim_attributes(graph, stays),
        statistics=cut_statistics(graph, stays),
        program=program.calls if program else None,
        notes=list(program.notes) if program else [],
        macs={"dense": graph.macs(), "slim": graph.macs(stays)},
        macs_by_operator={"dense": graph.macs_by_operator(), "slim": graph.macs_by_operator(stays)},
        params={"dense": graph.params(), "slim": graph.params(stays)},
    )


def _out_of_reach(
    limits: list[Limit], least: dict[str, float], constraints: Constraints, graph: DependencyGraph, whole: bool
) -> str:
    limit = max(limits, key=lambda limit: least[limit.name] / limit.allowed)
    smallest = least[limit.name]
    if whole:
        barriers = f": {len(graph.barriers)} barriers keep every channel" if graph.barriers else ""
        return f"budget {limit.text(limit.allowed)} can't be met: nothing can be removed from this network{barriers}"
    settings = {key: value for key, value in constraints.items() if value}
    if isinstance(constraints["align"], dict):
        settings["align"] = "auto"
    reason = ", ".join(f"{key}={value}" for key, value in settings.items())
    barriers = f" and {len(graph.barriers)} barriers (see `structprune inspect`)" if graph.barriers else ""
    return (
        f"budget {limit.text(limit.allowed)}, {limit.allowed / limit.dense:.4f} of the dense "
        f"{limit.amount(limit.dense)}, can't be met: with {reason}{barriers} the smallest network has "
        f"{limit.amount(smallest)} ({smallest / limit.dense:.4f}). Ask for {limit.least(smallest)}, or loosen the "
        "constraints"
    )


def _notes(limits: list[Limit], used: dict[str, float], plan: Plan, constraints: Constraints) -> list[str]:
    nearest = max(limits, key=lambda limit: used[limit.name] / limit.allowed)
    share = used[nearest.name] / nearest.allowed
    if share >= 0.99:
        return []
    whole = plan.macs["slim"] == plan.macs["dense"]
    align = constraints["align"] if isinstance(constraints["align"], int) else "auto"
    why = (
        "nothing needs to be pruned"
        if whole
        else f"widths move in steps (align={align}), and the next wider plan is over the budget"
    )
    return [
        f"{nearest.name} ends at {nearest.amount(used[nearest.name])}, {100 * (1 - share):.1f} % below the budget of "
        f"{nearest.amount(nearest.allowed)}: {why}"
    ]
