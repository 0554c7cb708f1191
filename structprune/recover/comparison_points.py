"""Where the slim network is held against the dense one while it is trained: what its blocks hand on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..calibration import WritableNetwork
from ..graph import trace
from ..graph.attention import Heads, attention_of
from ..graph.block_results import block_results
from ..graph.recorded_calls import CallSite, RecordedCalls
from ..graph.removal import removed_by
from ..ops import Inputs
from ..records import Plan


@dataclass(frozen=True)
class ComparisonPoint:
    """What a call makes in both networks.

    Attributes:
        site: the call.
        module: the module whose result it is.
        kept: for each axis of the dense network's tensor that was cut, the positions that the slim one has.
    """

    site: CallSite
    module: str
    kept: dict[int, Tensor]

    def as_slim(self, x: Tensor) -> Tensor:
        """The part of a dense network's tensor that the slim one has, as a tensor of its own."""
        for dim, positions in self.kept.items():
            x = x.index_select(dim, positions.to(x.device))
        return x if self.kept else x.clone()


def find_points(dense: WritableNetwork, slim: WritableNetwork, plan: Plan, example: Inputs) -> list[ComparisonPoint]:
    """Finds what the blocks of both networks hand on, in the order of the forward pass.

    Args:
        dense: the dense network.
        slim: the slim one, recorded on `example`.
        plan: by which it was cut.
        example: inputs of one forward pass.

    Returns:
        The points; none where a trace of the dense network does not lead to the plan's channels, or where channels were
        merged and so are no longer the dense network's.
    """
    if plan.merges is not None:
        return []
    graph = trace(dense.result, example, form="module" if plan.program is None else "graph")
    removed = removed_by(graph, plan.keep)
    if removed is None:
        return []
    calls = RecordedCalls(slim.recording)
    return [
        ComparisonPoint(result.site, result.module, {dim: torch.from_numpy(kept) for dim, kept in result.kept.items()})
        for result in block_results(graph, removed, _mixed(dense, slim))
        if calls.shape(result.site) == result.shape
    ]


def _mixed(dense: WritableNetwork, slim: WritableNetwork) -> set[str]:
    """The weights of layers that make queries, keys or values of fewer channels a head: least squares may have made
    mixtures of them, which are no channels of the dense network's."""
    there, here = (attention_of(network.result, network.recording, network.layers) for network in (dense, slim))
    widths = {product.site: product.width for product in (*here.logits, *here.values)}
    sides = [
        side
        for products, names in ((there.logits, ("left", "right")), (there.values, ("right",)))
        for product in products
        for side in (getattr(product, name) for name in names)
        if widths.get(product.site) != product.width
    ]
    return {side.layer.weight for side in sides if isinstance(side, Heads)}
