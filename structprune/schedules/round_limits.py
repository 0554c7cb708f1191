"""What a round may cut of the network that the rounds before it have left, so that limits of the dense one hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from ..errors import BudgetError
from ..graph import DependencyGraph
from ..plan import Allocation
from ..plan.allocations import Load
from ..plan.budget import Choice, Widths
from ..records import Plan, Scores


def amounts_left(
    shares: Mapping[str, float], earlier: Plan, graph: DependencyGraph, lead: float = 1.0
) -> dict[str, float]:
    """The budget of a round in amounts of the network that it cuts.

    Args:
        shares: What may stay of the dense network's macs, params or channels, and a speedup over it.
        earlier: The plan of all rounds before, on the dense network.
        graph: That of the network that they have left.
        lead: How many times as fast as the dense network that one is.

    Returns:
        Whole numbers, and the speedup over the network that is cut; without one where that is as fast as asked. All of
        its MACs where nothing else bounds it.

    Raises:
        BudgetError: The plan does not tell how many channels the dense network has.
    """
    amounts = {}
    for name, share in shares.items():
        if name == "speedup":
            if share > lead:
                amounts[name] = share / lead
        elif name == "channels":
            amounts[name] = max(2.0, _channels(share, earlier, graph))  # 1 would be a share
        else:
            amounts[name] = max(2.0, int(share * (earlier.macs if name == "macs" else earlier.params)["dense"]))
    return amounts or {"macs": max(2.0, earlier.macs["slim"])}


def _channels(share: float, earlier: Plan, graph: DependencyGraph) -> int:
    """Those of the groups that the graph still has: where nothing more can go, there is no group any more."""
    if not earlier.groups:
        raise BudgetError(
            "prune.schedule: the rounds so far do not tell which channels of the dense network are left: give a budget "
            "of macs or params, or cut at once"
        )
    allowed = int(share * sum(group["units"] for group in earlier.groups.values()))
    return allowed - (sum(earlier.widths.values()) - sum(group.units for group in graph.groups))


def fewest(earlier: Plan, graph: DependencyGraph, max_ratio: float) -> dict[str, int]:
    """How many units of each group stay at least, so that no more than `max_ratio` of the dense network's go.

    Groups that are not found by their names under `earlier` are left to `max_ratio` of what they have now.
    """
    least = {}
    for group in graph.groups:
        entry = earlier.groups.get(group.name)
        if entry is not None and len(entry["kept"]) == group.units:
            least[group.name] = entry["units"] - math.floor(max_ratio * entry["units"])
    return least


def keeping(allocation: Allocation, least: Mapping[str, int]) -> Allocation:
    """The allocation, which gives no group fewer units than `least` has of it."""

    def allocate(choices: list[Choice], scores: Scores, load: Load) -> Widths:
        limited = []
        for choice in choices:
            allowed = choice.widths >= min(least.get(choice.group.name, 0), choice.group.units)
            limited.append(dataclasses.replace(choice, widths=choice.widths[allowed]))
        return allocation.allocate(limited, scores, load)

    return dataclasses.replace(allocation, allocate=allocate)


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a schedule by groups goes to: the widths that groups are cut to, in the order of the network."""

    widths: Mapping[str, int]
    rounds: int

    @classmethod
    def of(cls, plan: Plan, rounds: int) -> Goal:
        """That of a plan which cuts all at once."""
        cut = (name for name, group in plan.groups.items() if len(group["kept"]) < group["units"])
        return cls({name: plan.widths[name] for name in cut}, rounds)

    def of_round(self, number: int) -> dict[str, int]:
        """The widths of the groups that have been cut after a round, counted from 1."""
        count = len(self.widths) * number // self.rounds
        return dict(list(self.widths.items())[:count])


def check_rounds(rounds: int, graph: DependencyGraph) -> None:
    """Raises BudgetError for more rounds than there are groups to cut one after another."""
    if rounds > len(graph.groups):
        raise BudgetError(
            f"prune.schedule.rounds={rounds}, and the network has {len(graph.groups)} groups of channels to cut one "
            "after another: set rounds to that or less"
        )


def towards(allocation: Allocation, widths: Mapping[str, int]) -> Allocation:
    """The allocation, held to these widths: groups without one stay as they are."""

    def allocate(choices: list[Choice], scores: Scores, load: Load) -> Widths:
        return {choice.group.name: widths.get(choice.group.name, choice.group.units) for choice in choices}

    return dataclasses.replace(allocation, allocate=allocate)
