"""Two plans side by side, width by width: `structprune diff`.

Enters two plans; leaves a record of where they differ, in what stays and in what is merged, and its table. Neither the
networks nor their weights are read.
"""

from __future__ import annotations

from pydantic import Field
from rich.markup import escape
from rich.table import Table

from ..json_records import JsonRecord
from ..plan_schema import Amounts
from ..records import Plan


class GroupDifference(JsonRecord):
    """A group in both plans."""

    name: str = Field(description="the leading layer")
    units: int | None = Field(description="those of the dense network; `null` where the plans do not agree on it")
    first: int | None = Field(description="units that the first plan keeps; `null` where it has no such group")
    second: int | None = Field(description="likewise the second")
    shared: int = Field(description="units that both keep")
    first_merged: int | None = Field(
        description="units that the first plan merges into those that it keeps; what else goes is dropped; `null` "
        "where it has no such group"
    )
    second_merged: int | None = Field(description="likewise the second")
    same: bool = Field(description="whether both keep the same units, and merge the same into the same")


class PlanDifference(JsonRecord):
    """Two plans side by side."""

    macs: tuple[float, float] = Field(description="share of MACs that stays by each plan")
    params: tuple[float, float] = Field(description="share of parameters, likewise")
    same: bool = Field(
        description="whether both keep and merge the same units of each group, and keep the same of each parameter"
    )
    groups: list[GroupDifference] = Field(description="each group of either plan, in the first one's order")


def difference_of(first: Plan, second: Plan) -> PlanDifference:
    """Holds two plans side by side.

    Args:
        first: A plan.
        second: Another, as a rule of the same network.

    Returns:
        Each group with what both keep of it.
    """
    groups = [_group(name, first, second) for name in dict.fromkeys([*first.groups, *second.groups])]
    return PlanDifference(
        macs=(_share(first.macs), _share(second.macs)),
        params=(_share(first.params), _share(second.params)),
        same=all(group.same for group in groups) and first.keep == second.keep,
        groups=groups,
    )


def difference_table(difference: PlanDifference, names: tuple[str, str]) -> Table:
    """Shows where two plans differ.

    Args:
        difference: Of the plans.
        names: What the plans are called.

    Returns:
        The table, of groups of which they keep or merge other units; with what is alike as its caption.
    """
    macs, params = difference.macs, difference.params
    shares = [f"{name}: MACs {macs[i]:.4f} and parameters {params[i]:.4f} of dense" for i, name in enumerate(names)]
    table = Table(title=escape("\n".join(shares)), title_justify="left", caption_justify="left")
    is_merged = any(group.first_merged or group.second_merged for group in difference.groups)
    goes = ["units that go"] if is_merged else []
    for title in ("leading layer", "units", *map(escape, names), "difference", "kept by both", *goes):
        table.add_column(title, justify="left" if title == "leading layer" else "right", overflow="fold")
    differing = [group for group in difference.groups if not group.same]
    for group in differing:
        is_in_both = group.first is not None and group.second is not None
        change = f"{group.second - group.first:+d}" if group.first is not None and group.second is not None else ""
        cells = [_number(group.units), _number(group.first), _number(group.second), change]
        cells += [str(group.shared) if is_in_both else "", *([_what_goes(group)] if is_merged else [])]
        table.add_row(escape(group.name), *cells)
    alike = len(difference.groups) - len(differing)
    table.caption = f"{alike} of {len(difference.groups)} groups keep the same units by both"
    table.caption += ", and merge the others alike" if is_merged else ""
    if not differing and not difference.same:
        table.caption += "; yet the plans keep different indices of some parameters"
    return table


def _group(name: str, first: Plan, second: Plan) -> GroupDifference:
    entries = [plan.groups.get(name) for plan in (first, second)]
    sizes = {entry["units"] for entry in entries if entry is not None}
    kept = [None if entry is None else set(entry["kept"]) for entry in entries]
    shared = len(kept[0] & kept[1]) if kept[0] is not None and kept[1] is not None else 0
    into = [_into(name, plan) for plan in (first, second)]
    merged = [
        None if units is None else sum(place not in (unit, -1) for unit, place in enumerate(units)) for units in into
    ]
    return GroupDifference(
        name=name,
        units=sizes.pop() if len(sizes) == 1 else None,
        first=None if kept[0] is None else len(kept[0]),
        second=None if kept[1] is None else len(kept[1]),
        shared=shared,
        first_merged=merged[0],
        second_merged=merged[1],
        same=into[0] is not None and into[0] == into[1],
    )


def _into(name: str, plan: Plan) -> list[int] | None:
    """For each unit of a group the one that it is merged into: itself if it stays, -1 if it is dropped."""
    if name not in plan.groups:
        return None
    entry = plan.groups[name]
    if plan.merges is not None and name in plan.merges["groups"]:
        return plan.merges["groups"][name]
    kept = set(entry["kept"])
    return [unit if unit in kept else -1 for unit in range(entry["units"])]


def _what_goes(group: GroupDifference) -> str:
    """What becomes of the units that do not stay, by each plan."""
    sides = ((group.first, group.first_merged), (group.second, group.second_merged))
    counts_agree = sides[0] == sides[1] and group.first == group.shared
    return " / ".join(_fate(group.units, *side) for side in sides) + (" (other clusters)" if counts_agree else "")


def _fate(units: int | None, kept: int | None, merged: int | None) -> str:
    dropped = 0 if units is None or kept is None or merged is None else units - kept - merged
    parts = [f"merges {merged}"] * bool(merged) + [f"drops {dropped}"] * bool(dropped)
    return ", ".join(parts) or "-"


def _share(amounts: Amounts) -> float:
    return amounts["slim"] / amounts["dense"] if amounts["dense"] else 1.0


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
