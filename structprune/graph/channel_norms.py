"""LayerNorms and RMSNorms of a recorded pass that have a scale of their own for each channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..ops import Captured, op_name
from ..ops.record import in_order
from .recorded_calls import CallSite, op_calls

_OPS = ("layer_norm", "rms_norm")


@dataclass(frozen=True)
class ChannelNorm:
    """A call that normalises the last axis, and the keys of its scale and offset, which no other call reads.

    `overload` is the op itself. It is the `call`th of its op, and the `place`th of all calls of a forward pass.
    """

    op: str
    overload: torch._ops.OpOverload
    call: int
    place: int
    module: str
    weight: str
    bias: str | None

    @property
    def site(self) -> CallSite:
        return self.op, self.call

    def call_with(self, args: Sequence[Any]) -> Tensor:
        """What the norm makes of the arguments of a call of it."""
        return self.overload(*args)


def find_channel_norms(recording: Captured) -> list[ChannelNorm]:
    """Finds the calls of LayerNorm and RMSNorm over channels.

    Args:
        recording: The recorded forward pass.

    Returns:
        Those with a scale, over the last axis alone, of inputs with at least one other, in the order of their calls.
    """
    nodes = op_calls(recording)
    readers = Counter(node for user in nodes for node in user.all_input_nodes)
    calls: Counter[str] = Counter()
    norms = []
    for place, node in enumerate(nodes):
        name = op_name(node.target)
        call, calls[name] = calls[name], calls[name] + 1
        if name not in _OPS:
            continue
        args = in_order(node.target, node.args, node.kwargs, 4)
        scale, offset = args[2], args[3] if name == "layer_norm" else None
        keys = [recording.parameters.get(x.name) if isinstance(x, fx.Node) else None for x in (scale, offset)]
        own = all(readers[x] == 1 for x in (scale, offset) if isinstance(x, fx.Node))
        known = keys[0] is not None and (offset is None) == (keys[1] is None)
        if own and known and len(args[1]) == 1 and node.meta["val"].dim() > 1:
            overload: Any = node.target
            norms.append(ChannelNorm(name, overload, call, place, node.meta["module"], str(keys[0]), keys[1]))
    return norms
