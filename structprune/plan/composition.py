"""Two cuts as one: the plan, on the dense network, of a plan and of another made on the network that it left.

All of it is data: indices of the second plan are places among those that the first kept. What the data can't tell is
refused in one line, never guessed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from pydantic import JsonValue

from ..errors import PlanError
from ..messages import shown
from ..plan_schema import Cut, GroupEntry, KeptAxes, Latency, Program, Statistic, in_blocks
from ..records import Plan
from .composed_programs import composed_program, cut_constants, own_keys

_SAME_RUNTIME = 1.5  # predictions of one network further apart than this were not made for the same runtime


def compose(first: Plan, other: Plan) -> Plan:
    """The plan of both cuts on the dense network (see `Plan.then`). Raises PlanError."""
    for plan in (first, other):
        plan.check()
        if plan.merges is not None:
            raise _refused(
                "one of them merges channels, and a mean of means is not that of all channels: drop channels in plans "
                "that follow each other"
            )
    _check_counts(first, other)
    keep, shapes = _kept(first, other)
    program = _program(first, other)
    groups, unmatched = _groups(first, other)
    cuts = [*_cuts(first), *_cuts(other)]
    composed = Plan(
        criterion=_in_turn(cut["criterion"] for cut in cuts),
        allocation=_in_turn(cut["allocation"] for cut in cuts),
        budget=_budget(first, other),
        constraints={"cuts": cuts},
        groups=groups,
        keep=keep,
        shapes=shapes,
        attributes={} if program is not None else _attributes(first, other),
        macs={"dense": first.macs["dense"], "slim": other.macs["slim"]},
        macs_by_operator={"dense": first.macs_by_operator["dense"], "slim": other.macs_by_operator["slim"]},
        params={"dense": first.params["dense"], "slim": other.params["slim"]},
        statistics=_statistics(first, other),
        program=program,
        latency=_latency(first, other),
        notes=list(dict.fromkeys([*first.notes, *other.notes, *unmatched])),
    )
    composed.check()
    return composed


def _check_counts(first: Plan, other: Plan) -> None:
    """The second plan must start from what the first ends with."""
    for name, field in (("parameters", "params"), ("MACs", "macs")):
        left, dense = getattr(first, field)["slim"], getattr(other, field)["dense"]
        if left != dense:
            reason = (
                "it was made for another network"
                if field == "params"
                else "trace the network that is left with example inputs of the same size"
            )
            raise _refused(f"the first leaves {left:,} {name}, and the second starts from {dense:,}: {reason}")


def _refused(why: str) -> PlanError:
    return PlanError(f"the plans can't be composed: {why}")


# --- kept positions ---------------------------------------------------------------------------------------------------


def _kept(first: Plan, other: Plan) -> tuple[dict[str, KeptAxes], dict[str, list[int]]]:
    """What both leave of each parameter and buffer, and the dense shapes of the same."""
    keep, shapes = dict(first.keep), dict(first.shapes)
    for key, axes in own_keys(first, other):
        left = _left(first, key) if key in first.keep else list(other.shapes[key])
        if left != list(other.shapes[key]):
            raise _refused(
                f"the first leaves {shown(key)} of shape {left}, and the second was made for {other.shapes[key]}: "
                "trace the network that the first leaves, and plan for that"
            )
        shapes.setdefault(key, left)
        fewer = "groups" in first.attributes.get(key.rpartition(".")[0], {})
        keep[key] = _composed(key, first.keep.get(key, {}), axes, shapes[key], fewer)
    return keep, shapes


def _left(plan: Plan, key: str) -> list[int]:
    """The shape that a plan leaves of a tensor that it slices."""
    shape = list(plan.shapes[key])
    for axis, kept in plan.keep[key].items():
        shape[int(axis)] = len(kept[0]) if in_blocks(kept) else len(kept)
    return shape


def _composed(key: str, before: KeptAxes, after: KeptAxes, dense: Sequence[int], fewer: bool) -> KeptAxes:
    """The kept indices of each axis in the dense numbering; `dense` is the dense shape, and `fewer` says that the first
    leaves fewer blocks than there were."""
    whole = _refused(
        f"one removes whole blocks of {shown(key)} and the other channels within the blocks: ignore this "
        "layer in one of them"
    )
    result = dict(before)
    for axis, kept in after.items():
        old = before.get(axis, list(range(dense[int(axis)])))
        if in_blocks(kept):
            if fewer or dense[0] % len(kept) or not _equal(_rows_left(before, dense[0], len(kept))):
                raise whole
            if in_blocks(old) and len(kept) != len(old):
                raise whole
            rows = old if in_blocks(old) else [old] * len(kept)
            result[axis] = [_picked(row, own) for row, own in zip(rows, kept, strict=True)]
        else:
            result[axis] = [_picked(row, kept) for row in old] if in_blocks(old) else _picked(old, kept)
    inner = result.get("1")
    if inner and in_blocks(inner) and not _equal(left := _rows_left(result, dense[0], len(inner))):
        alive = [block for block, count in zip(inner, left, strict=True) if count]
        if any(block != alive[0] for block in alive):
            raise whole
        result["1"] = alive[0]  # of all blocks that stay
    return dict(sorted(result.items()))


def _rows_left(axes: KeptAxes, dense: int, blocks: int) -> list[int]:
    """How many of the kept rows of axis 0 lie in each of the dense network's blocks."""
    kept = axes.get("0", list(range(dense)))
    assert not in_blocks(kept)  # `Plan.check`: only axis 1 has blocks
    counts = [0] * blocks
    for row in kept:
        counts[row * blocks // dense] += 1
    return counts


def _equal(counts: Sequence[int]) -> bool:
    return len(set(counts)) <= 1


def _picked(old: Sequence[int], kept: Sequence[int]) -> list[int]:
    try:
        return [int(old[index]) for index in kept]
    except IndexError:
        raise _refused(f"the second keeps {shown(kept)} of {len(old)} places that the first leaves") from None


# --- what else follows ------------------------------------------------------------------------------------------------


def _program(first: Plan, other: Plan) -> Program | None:
    if other.program is not None:
        return composed_program(first, other)
    if first.program is None:
        return None
    if other.attributes:  # a graph form has no numbers of modules
        raise _refused("the first is in graph form, and the second sets numbers of modules: plan both in one form")
    return cut_constants(first.program, other.keep)


def _attributes(first: Plan, other: Plan) -> dict[str, dict[str, JsonValue]]:
    paths = dict.fromkeys([*first.attributes, *other.attributes])
    return {path: {**first.attributes.get(path, {}), **other.attributes.get(path, {})} for path in paths}


def _statistics(first: Plan, other: Plan) -> list[Statistic]:
    """The calls by their number, which slim and dense network share: they run the same ops in the same order."""
    calls: dict[tuple[str, int], Statistic] = {}
    for entry in first.statistics:
        calls[entry["op"], entry["call"]] = {**entry, "keep": dict(entry["keep"])}
    for entry in other.statistics:
        call = (entry["op"], entry["call"])
        if call not in calls:  # the first cuts nothing there
            # a graph form's calls are all its own: which module makes them in the dense network it does not say
            calls[call] = {**entry, "module": None} if first.program is not None else entry
            continue
        keep = calls[call]["keep"]
        for place, axes in entry["keep"].items():
            old = keep.get(place, {})
            keep[place] = {**old, **{d: _picked(old[d], kept) if d in old else kept for d, kept in axes.items()}}
    return list(calls.values())


def _cuts(plan: Plan) -> list[Cut]:
    """What was asked of each cut of a plan, which may be composed itself."""
    if "cuts" in plan.constraints:
        return plan.constraints["cuts"]
    cut: Cut = {
        "criterion": plan.criterion,
        "allocation": plan.allocation,
        "budget": plan.budget,
        "constraints": plan.constraints,
        "macs": plan.macs,
        "params": plan.params,
    }
    return [cut]


def _in_turn(names: Iterator[str]) -> str:
    """`l1`, or `l1 then taylor`."""
    return " then ".join(name for name, _ in itertools.groupby(name for name in names if name))


def _budget(first: Plan, other: Plan) -> dict[str, float]:
    """What the last network is to be within, of the dense one: amounts are absolute, speedups multiplied."""
    budgets = [_absolute(first), _absolute(other)]
    result: dict[str, float] = {}
    for name in dict.fromkeys([*budgets[0], *budgets[1]]):
        amounts = [amount[name] for amount in budgets if name in amount]
        result[name] = amounts[0] * amounts[-1] if name == "speedup" and len(amounts) > 1 else min(amounts)
    return result


def _absolute(plan: Plan) -> dict[str, float]:
    """A plan's budget, with shares of its dense network as amounts."""
    units = sum(group["units"] for group in plan.groups.values())
    dense = {"macs": plan.macs["dense"], "params": plan.params["dense"], "channels": units}
    amounts = {name: int(x * dense[name]) if name in dense and x <= 1 else x for name, x in plan.budget.items()}
    return {name: amount for name, amount in amounts.items() if amount > 0}


def _latency(first: Plan, other: Plan) -> Latency | None:
    """What was predicted of the dense and the last network; nothing unless both cuts were planned for one runtime."""
    if first.latency is None or other.latency is None:
        return None
    less, more = sorted([first.latency["slim"], other.latency["dense"]])
    if more > _SAME_RUNTIME * less:
        return None
    return {"dense": first.latency["dense"], "slim": other.latency["slim"]}


# --- groups -----------------------------------------------------------------------------------------------------------


def _groups(first: Plan, other: Plan) -> tuple[dict[str, GroupEntry], list[str]]:
    """The first plan's groups, each with the units that are left after both; none, and a note, where the plans do not
    tell which of the second's groups are which."""
    result: dict[str, GroupEntry] = {name: {**group} for name, group in first.groups.items()}
    if other.keep and not other.groups:  # composed of such
        return {}, []
    for layer, theirs in _by_layer(other).items():
        own = [name for name in first.groups if _layer(name) == layer]
        matched = _matched(own, theirs, first, other)
        if matched is None:
            left = {name: len(first.groups[name]["kept"]) for name in own}
            units = {name: other.groups[name]["units"] for name in theirs}
            note = f"the first leaves groups of {shown(left)} units of layer {layer}, and the second has {shown(units)}"
            return {}, [f"the composed plan names no groups, only what is kept of each parameter: {note}"]
        for mine, name in matched.items():
            kept = first.groups[mine]["kept"]
            result[mine] = {**first.groups[mine], "kept": _picked(kept, other.groups[name]["kept"])}
    return result, []


def _by_layer(plan: Plan) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for name in plan.groups:
        result.setdefault(_layer(name), []).append(name)
    return result


def _layer(name: str) -> str:
    """The leading layer of a group, whose factors have names as `blocks.0.attn.qkv:num_heads` and `…qkv#2`."""
    return name.partition("#")[0].partition(":")[0]


def _matched(own: Sequence[str], theirs: Sequence[str], first: Plan, other: Plan) -> dict[str, str] | None:
    """Which group of the first plan is which of the second, of those that one layer leads; None if that is not told.

    Both list them in the order in which the layer makes them, and the second has as many units as the first left. One
    from which nothing more can go is missing in the second, and the others may be named otherwise by that. Where this
    leaves several ways, only groups that the second cuts must be told.
    """

    def in_order(mine: Sequence[str], names: Sequence[str]) -> list[str] | None:
        """The earliest of `mine` that each of `names` can be, in order."""
        left = iter(mine)
        matches = [next((a for a in left if _fits(first, a, other, name)), None) for name in names]
        return None if None in matches else [a for a in matches if a is not None]

    if list(own) == list(theirs) and all(_fits(first, name, other, name) for name in own):
        return dict(zip(own, theirs, strict=True))
    cut = [name for name in theirs if len(other.groups[name]["kept"]) < other.groups[name]["units"]]
    if not cut:
        return {}
    earliest, latest = in_order(own, theirs), in_order(own[::-1], theirs[::-1])
    if earliest is None or latest is None:
        return None
    ways = {a: name for a, b, name in zip(earliest, latest[::-1], theirs, strict=True) if a == b and name in cut}
    return ways if len(ways) == len(cut) else None


def _fits(first: Plan, mine: str, other: Plan, name: str) -> bool:
    return len(first.groups[mine]["kept"]) == other.groups[name]["units"]
