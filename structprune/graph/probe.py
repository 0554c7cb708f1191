"""Finds sizes that a model's own code fixes, and numbers that it derives, by running it once at other widths.

`x.view(-1, 400)` or `x[:, :16]` records the same node as `x.flatten(1)` or `x[:, : x.shape[1] // 2]`, but does
not follow when channels go. So a copy with about half of each group is run on fake tensors, and each node's
shape is compared with what the channel algebra predicts. So are the numbers that ops get: a factor worked out from
a width (`x * channels**-0.5`) would change with it. The first node that does not follow is returned.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..errors import ModelError
from ..modules import replace_tensors, set_attributes, skeleton_copy, tensors
from .capture import Captured, op_name, record
from .dependency import DependencyGraph
from .flow import all_axes
from .units import alive


def unfollowed(
    graph: DependencyGraph, captured: Captured, values: dict[str, Any], barred: dict[str, str]
) -> tuple[str, str] | None:
    """The name of the first node whose size does not follow the widths, and why; None if all do."""
    nodes = [node for node in captured.graph.nodes if node.op == "call_function"]
    if not graph.groups:
        return None
    kept = {group.name: np.arange((group.units + 1) // 2) for group in graph.groups}
    trial, error = record(_at_width(graph, kept), graph.inputs)
    removed = graph.removed(kept)
    seen = [] if trial is None else [node for node in trial.graph.nodes if node.op == "call_function"]
    position = 0
    for node in nodes:
        while error and position < len(seen) and seen[position].target != node.target and not seen[position].users:
            position += 1  # a dead node, which only a finished recording has dropped
        if position >= len(seen) or seen[position].target != node.target:
            return _culprit(
                node, nodes, values, barred, error or "the model's code takes another path at another width"
            )
        if _shapes(seen[position]) != _predicted(values[node.name], graph, removed):
            return _culprit(node, nodes, values, barred, "its size is a number in the model's code")
        if _numbers(seen[position]) != _numbers(node):
            return _culprit(
                node, nodes, values, barred, "it gets a number that the model's code works out from a width"
            )
        position += 1
    return None


# Ops whose whole numbers are sizes, which follow the widths and which the shapes have told already.
_SIZES = (
    "view reshape _unsafe_view unflatten expand repeat slice split split_with_sizes narrow zeros ones full empty "
    "new_zeros new_ones new_full conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"
)
_SIZED = frozenset(_SIZES.split())


def _numbers(node: fx.Node) -> list[str]:
    """The numbers among a node's arguments, other than sizes, as text (NaN equals itself)."""
    leaves = pytree.tree_flatten((list(node.args), dict(node.kwargs)))[0]
    kinds = (float,) if op_name(node.target) in _SIZED else (int, float)
    return [repr(leaf) for leaf in leaves if isinstance(leaf, kinds)]


def _at_width(graph: DependencyGraph, kept: dict[str, np.ndarray]) -> torch.nn.Module:
    model = skeleton_copy(graph.model)
    state, new = tensors(model), {}
    for key, axes in graph.keep(kept).items():
        shape = [len(axes[str(d)]) if str(d) in axes else n for d, n in enumerate(state[key].shape)]
        new[key] = torch.empty(shape, dtype=state[key].dtype, device=state[key].device)
    replace_tensors(model, new)
    set_attributes(model, graph.attributes(kept))
    return model


def _culprit(
    node: fx.Node, nodes: list[fx.Node], values: dict[str, Any], barred: dict[str, str], why: str
) -> tuple[str, str]:
    """The node itself, or the nearest one before it that still lets channels pass."""
    for candidate in reversed(nodes[: nodes.index(node) + 1]):
        if candidate.name not in barred and candidate.target is not operator.getitem and _live(candidate, values):
            return candidate.name, f"{why}, so its channels can't go"
    raise ModelError(
        f"the model's forward is not the same twice ({node.meta.get('module') or 'top level'}: {node.name}), though no "
        f"channel that could go reaches it: {why}. Make it deterministic in evaluation mode"
    )


def _live(node: fx.Node, values: dict[str, Any]) -> bool:
    return any(axis is not None for parent in node.all_input_nodes for axis in all_axes(values[parent.name]))


def _shapes(node: fx.Node) -> list[tuple[int, ...]]:
    value = node.meta.get("val")
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [tuple(part.shape) for part in parts if isinstance(part, Tensor)]


def _predicted(value: Any, graph: DependencyGraph, removed: np.ndarray) -> list[tuple[int, ...]]:
    parts = value if isinstance(value, list) else [value]
    return [
        tuple(
            size if axis is None else int(alive(graph.classes_of(axis), removed).sum())
            for size, axis in zip(part.shape, part.axes, strict=True)
        )
        for part in parts
    ]
