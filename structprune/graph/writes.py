"""Writes in place: which tensors, made before, no longer hold what they did."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import fx
from torch._ops import OpOverload

from .recorded_calls import memories


class Writes:
    """The last call that wrote to each piece of memory, in the order of the calls.

    The tensor that a call writes to is its result from then on; a view of the same memory, or what it is a view of,
    is known by the node that made it, which tells nothing of the write.
    """

    def __init__(self) -> None:
        self._order: dict[fx.Node, int] = {}
        self._written: dict[int, int] = {}

    def note(self, node: fx.Node) -> None:
        """Adds a call, after it was looked at."""
        self._order[node] = len(self._order) + 1
        if isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
            for memory in memories(node):
                self._written[memory] = self._order[node]

    def stale(self, node: fx.Node) -> list[fx.Node]:
        """What `node` reads that was written to, by another name, since it was made."""
        if not self._written:
            return []
        return [parent for parent in node.all_input_nodes if self._is_stale(parent)]

    def _is_stale(self, node: fx.Node) -> bool:
        whole: Any = node.args[0] if node.args and node not in self._order else node  # a part of several results
        order = self._order.get(whole, 0)
        return any(self._written.get(memory, 0) > order for memory in memories(node))


def unknown(value: Any) -> Any:
    """The same tensor or tensors, of which it is not known what stands where channels were removed."""
    if isinstance(value, list):
        return [unknown(part) for part in value]
    return dataclasses.replace(value, masked=())
