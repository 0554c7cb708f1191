"""What tells one traced network from another, for measurements that are kept on disk."""

from __future__ import annotations

import hashlib

from torch import Tensor

from ..ops import op_name
from .channels import ChannelGraph


def fingerprint(graph: ChannelGraph) -> str:
    """A hash of a network's calls, shapes and groups, whatever its weights."""
    digest = hashlib.sha256(graph.form.encode())
    for node in graph.recording.graph.nodes:
        value = node.meta.get("val")
        result = (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else ()
        digest.update(f"{op_name(node.target)} {result} {node.args} {node.kwargs}".encode())
    for group in graph.groups:
        digest.update(f"{group.name} {group.units} {[(s.key, s.dim) for s in group.slices]}".encode())
    return digest.hexdigest()
