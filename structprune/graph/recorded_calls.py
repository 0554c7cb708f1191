"""The calls of a recorded pass, for those who look at them while the network runs again."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from ..ops import Captured, leaves_of, op_name
from ..ops.record import record_of

CallSite = tuple[str, int]  # the name of an op, and how many calls of it come before


def op_calls(recording: Captured) -> list[fx.Node]:
    """The nodes that are calls of ops, without those that take one result of several."""
    return [node for node in recording.calls if node.target is not operator.getitem]


@dataclass(frozen=True)
class CallLife:
    """One call of a pass: its op, until which call its result is needed, and whether it writes to an argument.

    `last_reader` is the place of a call, the number of calls if the network returns the result, or -1.
    """

    op: str
    last_reader: int
    writes: bool


def call_lives(recording: Captured) -> list[CallLife]:
    """The life of each call's result, in the order of the calls."""
    nodes = op_calls(recording)
    places = {node: place for place, node in enumerate(nodes)}
    last = [max([_last_reader(user, places) for user in node.users], default=-1) for node in nodes]
    for place in reversed(range(len(nodes))):
        target = nodes[place].args[0] if nodes[place].args else None
        if _writes(nodes[place]) and isinstance(target, fx.Node) and target in places:
            written = places[target]  # later calls read what this one wrote to it
            last[written] = max(last[written], last[place])
    return [CallLife(op_name(node.target), last[place], _writes(node)) for node, place in places.items()]


def _last_reader(user: fx.Node, places: dict[fx.Node, int]) -> int:
    """The last call that reads what `user` is, or one of the results that it takes apart."""
    if user in places:
        return places[user]
    if user.op == "output":
        return len(places)
    return max([_last_reader(other, places) for other in user.users], default=-1)


def find_changed(recording: Captured, keys: Collection[str]) -> set[str]:
    """Finds what changes when some tensors of a network do.

    Args:
        recording: of a forward pass.
        keys: the state_dict keys of parameters and buffers.

    Returns:
        The names of the values that are computed from them.
    """
    names = {name for name, key in recording.parameters.items() if key in keys}
    written: set[int] = set()  # memory that something changed was written to, and that may have other names
    for node in recording.calls:
        if any(parent.name in names or memories(parent) & written for parent in node.all_input_nodes):
            names.add(node.name)
            if node.target is not operator.getitem and _writes(node):
                written |= memories(node)
    return names - set(recording.parameters)


def memories(node: fx.Node) -> set[int]:
    """The pieces of memory in which what a node made lies; views share theirs."""
    leaves = [leaf for leaf in leaves_of(node.meta.get("val")) if isinstance(leaf, Tensor)]
    return {leaf.untyped_storage()._cdata for leaf in leaves}


def is_returned(recording: Captured, place: int) -> bool:
    """Tells whether what a call makes, and nothing else, is what the network returns.

    Args:
        recording: of a forward pass.
        place: the number of the call.

    Returns:
        Whether it is, as it comes from the call.
    """
    node = op_calls(recording)[place]
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user.op == "output":
            return user.all_input_nodes == [node]
        if user.target is operator.getitem or record_of(op_name(user.target)).effect != "same":
            return False
        node = user
    return False


def _writes(node: fx.Node) -> bool:
    return bool(node.target._schema.is_mutable)  # type: ignore[union-attr]


def result_bytes(recording: Captured) -> int:
    """The bytes of all that the calls of a pass make, views counted as what they show."""
    leaves = [leaf for node in op_calls(recording) for leaf in leaves_of(node.meta["val"])]
    return sum(x.numel() * x.element_size() for x in leaves if isinstance(x, Tensor))


class RecordedCalls:
    """What each call makes, and where it goes from there."""

    def __init__(self, recording: Captured) -> None:
        self._by_name = {node.name: node for node in recording.graph.nodes}
        self._sites: dict[fx.Node, CallSite] = {}
        counts: Counter[str] = Counter()
        for node in op_calls(recording):
            name = op_name(node.target)
            self._sites[node], counts[name] = (name, counts[name]), counts[name] + 1
        self._by_site = {site: node for node, site in self._sites.items()}

    def result(self, site: CallSite) -> Tensor:
        """What a call returned when it was recorded: a tensor without values."""
        return self._by_site[site].meta["val"]

    def shape(self, site: CallSite) -> tuple[int, ...] | None:
        """The shape of the tensor that a call made when it was recorded; None if there is no such call or tensor."""
        node = self._by_site.get(site)
        value = None if node is None else node.meta["val"]
        return tuple(value.shape) if isinstance(value, Tensor) else None

    def before_average(self, name: str, channels: int) -> CallSite | None:
        """The call that makes the feature maps of which the value of that name is the average over places.

        None if it is no such average, or the maps have another number of channels.
        """
        value: Any = self._by_name[name]
        node = value
        while node in self._sites:
            op, shape = self._sites[node][0], node.meta["val"].shape
            effect = record_of(op).effect
            if effect not in ("average", "mean", "same") and not (effect == "squeezed" and _flat(node)):
                averaged = node is not value and len(shape) > 2 and shape[1] == channels
                return self._sites[node] if averaged else None
            node = node.args[0]
        return None

    def activation_after(self, site: CallSite) -> Callable[[Tensor], Tensor]:
        """What the network does, element by element, to what a call makes, as long as nothing else reads it."""
        node, functions = self._by_site[site], []
        while len(node.users) == 1:
            user = next(iter(node.users))
            effect = record_of(op_name(user.target)).effect if user.op == "call_function" else ""
            others = [x for x in leaves_of((user.args[1:], user.kwargs)) if isinstance(x, fx.Node)]
            if effect == "activation" and user.args[0] is node and not others:
                functions.append(function_of(user))
            elif effect != "same":
                break
            node = user

        def activate(values: Tensor) -> Tensor:
            for function in functions:
                values = function(values)
            return values

        return activate


def function_of(node: fx.Node) -> Callable[[Tensor], Tensor]:
    """What the op of a node does to its first argument."""
    return lambda values: node.target(values.clone(), *node.args[1:], **node.kwargs)  # type: ignore[operator]


def _flat(node: fx.Node) -> bool:
    """Whether a flatten or squeeze only drops axes of one place."""
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    return math.prod(shape[2:]) == 1
