"""The calls of a recorded forward pass, for those who look at them while the network runs again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from ..ops import Captured, leaves_of, op_name
from ..ops.record import record_of
from .expectation import step
from .layers import Layer, Norm, ops

Call = tuple[str, int]  # the name of an op, and how many calls of it come before


class Calls:
    """What is made by which call, and where it goes from there."""

    def __init__(self, captured: Captured) -> None:
        self._nodes = ops(captured)
        self._calls: dict[fx.Node, Call] = {}
        counts: Counter[str] = Counter()
        for node in self._nodes:
            name = op_name(node.target)
            self._calls[node], counts[name] = (name, counts[name]), counts[name] + 1
        self._by_call = {call: node for node, call in self._calls.items()}

    def made(self, call: Call) -> Tensor:
        """What a call made when it was recorded: a tensor without values."""
        return self._by_call[call].meta["val"]

    def before_average(self, layer: Layer, channels: int) -> Call | None:
        """The call that makes the feature maps of which a layer gets the average over places; None if that is not what
        the layer gets, or the maps have another number of channels."""
        node: Any = layer.entering
        while node in self._calls:
            name, shape = self._calls[node][0], node.meta["val"].shape
            effect = record_of(name).effect
            if effect not in ("average", "mean", "same") and not (effect == "squeezed" and _flat(node)):
                averaged = node is not layer.entering and len(shape) > 2 and shape[1] == channels
                return self._calls[node] if averaged else None
            node = node.args[0]
        return None

    def activation_after(self, norm: Norm) -> Callable[[Tensor], Tensor]:
        """What the network does, element by element, to what a BatchNorm makes, as long as nothing else reads it."""
        node, steps = self._nodes[norm.place], []
        while len(node.users) == 1:
            user = next(iter(node.users))
            effect = record_of(op_name(user.target)).effect if user.op == "call_function" else ""
            others = [x for x in leaves_of((user.args[1:], user.kwargs)) if isinstance(x, fx.Node)]
            if effect == "activation" and user.args[0] is node and not others:
                steps.append(step(user))
            elif effect != "same":
                break
            node = user

        def activate(values: Tensor) -> Tensor:
            for function in steps:
                values = function(values)
            return values

        return activate


def _flat(node: fx.Node) -> bool:
    """Whether a flatten or squeeze only drops axes of one place."""
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    return math.prod(shape[2:]) == 1
