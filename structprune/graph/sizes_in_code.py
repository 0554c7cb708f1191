"""Finds sizes that a model's own code fixes, and numbers that it derives, by running it once at other widths.

`x.view(-1, 400)` or `x[:, :16]` records the same node as `x.flatten(1)` or `x[:, : x.shape[1] // 2]`, but does
not follow when channels go. So a copy with part of each group is run on meta tensors, and each node's
shape is compared with what the channel algebra predicts. So are the numbers that ops get: a factor worked out from
a width (`x * channels**-0.5`) would change with it. What does not follow first is returned, with every other call from
the same line of code.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx

from ..errors import ModelError
from ..ops import Captured, leaves_of, op_name
from ..ops.conditions import Condition
from ..ops.forward_pass import record
from ..ops.provenance import Size, Source
from ..ops.record import place, record_of
from .attributes import slim_attributes
from .axes import alive
from .channels import ChannelGraph
from .removal import mark_removed, slim_shapes
from .values import all_axes
from .width_conditions import decided, reason


def unfollowed(graph: ChannelGraph, captured: Captured, values: dict[str, Any], barred: Bars) -> Bars:
    """The names of nodes whose size does not follow the widths, and why; empty if all do."""
    nodes = captured.calls  # and the parts of those that make several tensors
    if not graph.groups:
        return {}
    # two shares, so that numbers which happen to agree at one are told apart at the other
    kept = {group.name: group.narrowed((2, 3)[i % 2]) for i, group in enumerate(graph.groups)}
    slim = slim_shapes(graph, kept), slim_attributes(graph, kept)
    trial, error = record(graph.model, captured.inputs, *slim, captured.scenario)
    compared: Bars = {
        what: Bar(reason(why) + (f" ({error})" if error else ""), module=why.module, line=why.line)
        for what, why in decided(graph, captured, values, trial, kept).items()
    }
    if any(what not in barred for what in compared):
        return compared
    removed = mark_removed(graph, kept)
    lengths: dict[int, int] = {}
    again = trial.calls
    for position, node in enumerate(nodes):
        why, dims = "", None
        if position >= len(again) or again[position].target != node.target:
            why = error or "the model's code takes another path at another width"
        elif not isinstance(node.meta["val"], (Tensor, list, tuple)):  # a number read from a tensor
            if again[position].meta["val"] != node.meta["val"]:
                why = "it reads a number that depends on a width"
        elif _shapes(again[position]) != _predicted(values[node.name], graph, removed, lengths):
            why = "its size is a number in the model's code"
        elif _starts_elsewhere(again[position], node):
            why = "it cuts at a place that the model's code works out from a width"
        elif _numbers(again[position]) != _numbers(node):
            why = "it gets a number that the model's code works out from a width"
            dims = _decisive(graph, captured, values, node, position)
        if why:
            if dims and node.name not in barred:
                differ = [n for n, other in zip(nodes, again, strict=False) if _differ(n, other)]
                like = [n for n in differ if _place(n) == _place(node) and n.name not in barred]
                return {n.name: Bar(f"{why}, so its channels can't go", dims=dims) for n in like}
            return _culprits(node, captured, values, graph, barred, why, error is not None)
    if error is not None:
        return _culprits(nodes[-1], captured, values, graph, barred, error, True)
    return {}


def _numbers(node: fx.Node) -> list[str]:
    """The numbers among a node's arguments, other than sizes, as text (NaN equals itself), also in small constants."""
    args, kwargs = list(node.args), dict(node.kwargs)
    for size in record_of(op_name(node.target)).sizes_of(node):  # which the shapes hold already
        at = place(node.target, size)  # type: ignore[arg-type]
        if at is not None and at < len(args):
            args[at] = None
        kwargs.pop(size, None)
    leaves = list(leaves_of((args, kwargs)))
    constants = [leaf.meta["val"] for leaf in leaves if isinstance(leaf, fx.Node) and leaf.op == "get_attr"]
    leaves += [repr(t.tolist()) for t in constants if t.numel() <= 16 and not t.is_meta]
    return [repr(leaf) for leaf in leaves if isinstance(leaf, (int, float, str))]


def _starts_elsewhere(node: fx.Node, other: fx.Node) -> bool:
    """Whether two calls cut out of axes of one length, but not from the same place on: the shapes do not tell."""
    if op_name(node.target) not in ("slice", "narrow") or len(node.args) < 3 or node.target != other.target:
        return False
    whole, same = (n.args[0].meta["val"].shape for n in (node, other))  # type: ignore[union-attr]
    dim, starts = node.args[1], (node.args[2], other.args[2])
    if whole[dim] != same[dim] or any(isinstance(start, fx.Node) for start in starts):
        return False
    a, b = (slice(start, None).indices(whole[dim])[0] for start in starts)
    return a != b


def _differ(node: fx.Node, other: fx.Node) -> bool:
    return node.target is not operator.getitem and node.target == other.target and _numbers(node) != _numbers(other)


@dataclass(frozen=True)
class Bar:
    """What enters a node stays, for a reason: its tensors, and with `parameters` those of the model too.

    Or the channels that a size or an attribute counts, which the code compares at `line` in `module`.
    With `dims`, counted from the last, only these axes.
    """

    reason: str
    parameters: bool = False
    module: str = ""
    line: str = ""
    dims: frozenset[int] | None = None


Bars = dict["str | Size | Source | Condition", Bar]  # by the name of a node, or by what is compared


def _decisive(
    graph: ChannelGraph, captured: Captured, values: dict[str, Any], node: fx.Node, position: int
) -> frozenset[int] | None:
    """The axes, counted from the last, whose channels change the numbers of a call; None if that can't be told.

    Each is tried alone: the code runs with part of the groups on that axis and all of the others.
    """
    entering = [values[parent.name] for parent in node.all_input_nodes]
    axes: dict[int, list[np.ndarray]] = {}
    for value in entering:
        for back, axis in enumerate(reversed(value.axes), 1) if not isinstance(value, list) and not value.key else ():
            if axis is not None and graph.removable(axis):
                axes.setdefault(-back, []).append(graph.classes_of(axis))
    dims = set()
    for dim, on in axes.items():
        kept = {g.name: g.narrowed(2) for g in graph.groups if any(np.isin(g.ids, classes).any() for classes in on)}
        slim = slim_shapes(graph, kept), slim_attributes(graph, kept)
        trial, _ = record(graph.model, captured.inputs, *slim, captured.scenario)
        calls = [] if trial.unknown else trial.calls  # on another path the code asks for values
        same = position < len(calls) and calls[position].target == node.target
        if not same or _numbers(calls[position]) != _numbers(node):
            dims.add(dim)
    return frozenset(dims) or None


def _culprits(
    node: fx.Node,
    captured: Captured,
    values: dict[str, Any],
    graph: ChannelGraph,
    barred: Bars,
    why: str,
    failed: bool,
) -> Bars:
    """The node itself, if channels that could go reach it; else what brings them into its module, where the code may
    read a width; else the nearest one before it; else one whose parameters could be cut. With each, its like: other
    calls from the same line."""
    nodes = captured.calls
    before = nodes[: nodes.index(node) + 1]
    for parameters in (False, True) if failed or _steady(graph, captured) else (False,):

        def live(n: fx.Node, parameters: bool = parameters) -> bool:
            old = barred.get(n.name)
            new = old is None or old.dims is not None or (parameters and not old.parameters)
            return new and n.target is not operator.getitem and _live(n, values, graph, parameters)

        after = [[n] for n in nodes[len(before) :]] if parameters else []  # a check of a parameter, before its use
        for candidates in ([node], _entries(node, before), *([n] for n in reversed(before)), *after):
            places = {_place(n) for n in candidates if live(n)}
            if places:
                like = [n for n in nodes if n.target is not operator.getitem and _place(n) in places and live(n)]
                return {n.name: Bar(f"{why}, so its channels can't go", parameters) for n in like}
    raise ModelError(
        f"the model's forward is not the same twice ({node.meta.get('module') or 'top level'}: {node.name}), though no "
        f"channel that could go reaches it: {why}. Make it deterministic in evaluation mode"
    )


def _steady(graph: ChannelGraph, captured: Captured) -> bool:
    """Whether the model does the same when it runs again at the same widths."""
    again = record(graph.model, captured.inputs, scenario=captured.scenario)[0]
    runs = ([(n.target, _shapes(n), _numbers(n)) for n in run.calls] for run in (again, captured))
    return next(runs) == next(runs)


def _place(node: fx.Node) -> tuple[Any, ...]:
    """The line of code that makes a call, in whichever block of the network: module paths without their numbers.

    A module of PyTorch's own runs one line for all its kind, so there the last number counts.
    """
    path = node.meta["module"]
    head, _, last = path.rpartition(".")
    path = f"{_DIGITS.sub('#', head)}.{last}" if node.meta["native"] else _DIGITS.sub("#", path)
    return node.meta["line"], node.target, path


_DIGITS = re.compile(r"\d+")


def _entries(node: fx.Node, before: list[fx.Node]) -> list[fx.Node]:
    """The calls within the node's module that use what was made outside it."""
    path = node.meta["module"]
    if not path:
        return []
    inside = {n for n in before if n.meta["module"] == path or n.meta["module"].startswith(path + ".")}
    return [n for n in inside if any(p.op == "call_function" and p not in inside for p in n.all_input_nodes)]


def _live(node: fx.Node, values: dict[str, Any], graph: ChannelGraph, parameters: bool) -> bool:
    entering = [values[parent.name] for parent in node.all_input_nodes]
    entering = [v for v in entering if parameters or isinstance(v, list) or v.key is None]
    if record_of(op_name(node.target)).spreads:
        entering.append(values[node.name])
    return any(axis is not None and graph.removable(axis) for value in entering for axis in all_axes(value))


def _shapes(node: fx.Node) -> list[tuple[int, ...]]:
    value = node.meta.get("val")
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [tuple(part.shape) for part in parts if isinstance(part, Tensor)]


def _predicted(value: Any, graph: ChannelGraph, removed: np.ndarray, lengths: dict[int, int]) -> list[tuple[int, ...]]:
    """The shapes after a removal; `lengths` keeps how long each axis is then, as most nodes only pass theirs on."""

    def length(axis: np.ndarray) -> int:
        if id(axis) not in lengths:
            lengths[id(axis)] = int(alive(graph.classes_of(axis), removed).sum())
        return lengths[id(axis)]

    parts = value if isinstance(value, list) else [value]
    return [
        tuple(size if axis is None else length(axis) for size, axis in zip(part.shape, part.axes, strict=True))
        for part in parts
    ]
