"""The share of importance that a network keeps, by the scores of the dense one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from ..graph import DependencyGraph
from ..modules import tensors
from ..records import Scores

Blocks = list[np.ndarray]


def share_kept(graph: DependencyGraph, scores: Scores, kept: Mapping[tuple[str, int], Blocks]) -> float:
    """The geometric mean, over scored groups, of the share of scores that stays on the leading layer's positions.

    `kept` has, for an axis of a tensor, the kept indices of each block of axis 0, or one entry for all; all positions
    stay where it has none.
    """
    shares, sizes = [], {key: tensor.shape for key, tensor in tensors(graph.model).items()}
    for group in graph.groups:
        if group.name not in scores.values:
            continue
        leading = group.leading
        each = scores.values[group.name] - min(0.0, float(scores.values[group.name].min()))
        of_position = np.append(each, 0.0)[leading.index].sum(axis=1)  # -1, no unit, looks up the 0
        blocks = kept.get((leading.key, leading.dim))
        if of_position.sum() <= 0:
            continue
        if blocks is None:
            shares.append(1.0)
            continue
        rows = of_position.reshape(-1, sizes[leading.key][leading.dim])
        blocks = blocks * len(rows) if len(blocks) == 1 else blocks
        stays = sum(row[index].sum() for row, index in zip(rows, blocks, strict=True))
        shares.append(float(stays / of_position.sum()))
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(shares)))) if shares else 1.0


def planned_indices(keep: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, int], Blocks]:
    """What a plan keeps, as `share_kept` takes it."""
    flat = ((key, int(dim), index) for key, dims in keep.items() for dim, index in dims.items())
    return {
        (key, dim): [np.array(block, int) for block in (i if i and isinstance(i[0], list) else [i])]
        for key, dim, i in flat
    }


def stored_indices(path: Path) -> dict[tuple[str, int], Blocks]:
    """What torch-pruning kept, from the file that its process wrote."""
    return {(key.rpartition("/")[0], int(key.rpartition("/")[2])): [index] for key, index in load_file(path).items()}
