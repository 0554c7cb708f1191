"""Which kind of layer each weight belongs to, as runtimes tell them apart."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from ..ops import op_name
from ..ops.record import CONVOLUTIONS, OpRecord, record_of
from .channels import ChannelGraph

KINDS = ("conv", "depthwise", "linear")


@dataclass(frozen=True)
class LayerKind:
    """One of KINDS, and in how many blocks of its own the channels of such a layer are chosen.

    That is more than one where the blocks of a grouped convolution keep different positions.
    """

    kind: str
    blocks: int = 1


def layer_kinds(graph: ChannelGraph) -> dict[str, LayerKind]:
    """The kind of the layer that uses each weight, by the weight's key; of several the last convolution's."""
    kinds: dict[str, LayerKind] = {}
    for node in graph.recording.calls:
        record = record_of(op_name(node.target))
        for parent in node.all_input_nodes:
            key = graph.recording.parameters.get(parent.name)
            shape = tuple(getattr(parent.meta.get("val"), "shape", ()))
            if key is None or len(shape) < 2:
                continue
            if record.kind in CONVOLUTIONS:
                groups = _groups(record, node)
                kind = "depthwise" if groups > 1 and shape[1] == 1 else "conv"
                kinds[key] = LayerKind(kind, groups if groups > 1 and (key, 1) in graph.blocked else 1)
            elif record.kind in ("linear", "product"):
                kinds.setdefault(key, LayerKind("linear"))
    return kinds


def _groups(record: OpRecord, node: fx.Node) -> int:
    """How many groups of channels a convolution convolves, each by itself; 1 for a transposed one."""
    if record.kind == "transposed convolution":
        return 1
    x, weight = (record.read(node, role).meta["val"] for role in ("input", "weight"))
    return int(x.shape[x.dim() - weight.dim() + 1] // weight.shape[1])
