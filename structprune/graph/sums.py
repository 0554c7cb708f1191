"""The sums that layers add to, so that a refit can make up for what the other summand has lost by then.

In a residual block the shortcut of the slim network is no longer the dense network's. So the last layer of the branch
is fitted to the dense network's sum less the slim network's shortcut, and errors do not add up from block to block (He
et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, section 3.3, last layer of residual
branch).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass

from torch import fx

from ..ops import Captured, op_name
from ..ops.record import in_order, record_of
from .layers import Layer
from .recorded_calls import CallSite, op_calls


@dataclass(frozen=True)
class Sum:
    """A call that adds something to what a layer makes.

    Attributes:
        site: the call.
        place: how many calls of any op come before.
        other: which of its arguments is the other summand.
    """

    site: CallSite
    place: int
    other: int


def find_sums(recording: Captured, layers: Iterable[Layer]) -> dict[Layer, Sum]:
    """Finds the sums that what layers make goes into, behind their BatchNorms and nothing else.

    Args:
        recording: of a forward pass.
        layers: some of its layers.

    Returns:
        The sum of each layer for which there is one whose other summand is a tensor of the same shape that was made
        before: of two layers that are added the later one alone has it.
    """
    calls = op_calls(recording)
    places = {node: place for place, node in enumerate(calls)}
    sums = {}
    for layer in layers:
        summand, call = _follow(calls[layer.norm.place if layer.norm else layer.place])
        if call not in places:
            continue
        argument, other = _find_other(summand, call)
        if other is None or places.get(_source(other), len(places)) >= layer.place:
            continue
        name = op_name(call.target)
        before = sum(op_name(node.target) == name for node in calls[: places[call]])
        sums[layer] = Sum((name, before), places[call], argument)
    return sums


def _follow(node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """Goes on from a value, as long as one call reads it and leaves it as it is, to the call that adds something to it.

    Returns the value that this call reads, and the call: None where there is none."""
    while len(node.users) == 1:
        user = next(iter(node.users))
        effect = record_of(op_name(user.target)).effect if user.op == "call_function" else ""
        if effect == "sum":
            return node, user
        if effect != "same":
            break
        node = user
    return node, None


def _source(node: fx.Node) -> fx.Node:
    """The call that made a value, which may be one of several."""
    return node.all_input_nodes[0] if node.target is operator.getitem else node


def _find_other(summand: fx.Node, call: fx.Node) -> tuple[int, fx.Node | None]:
    """Which argument of a sum is the other summand, and that; None where it is multiplied, broadcast, no tensor of the
    network's own, or written to by the sum."""
    args = in_order(call.target, call.args, call.kwargs)
    summands, factors = args[:2], args[2:]
    if summands.count(summand) != 1 or any(factor != 1 for factor in factors):
        return 0, None
    place = 1 - summands.index(summand)
    other = summands[place]
    written = place == 0 and call.target._schema.is_mutable  # type: ignore[union-attr]
    if not isinstance(other, fx.Node) or written or other.meta["val"].shape != summand.meta["val"].shape:
        return 0, None
    return place, other
