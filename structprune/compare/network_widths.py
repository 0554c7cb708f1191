"""How wide each network of a comparison is, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..graph import DependencyGraph
from ..records import Plan
from .importance import Blocks, planned_indices, stored_indices
from .records import CutRow, FailedRow, NetworkWidths


def widths_of(graph: DependencyGraph, rows: Sequence[CutRow | FailedRow], folder: Path) -> list[NetworkWidths]:
    """The widths of the networks that were made.

    Args:
        graph: The dense network's.
        rows: The networks.
        folder: That of the comparison, which holds a folder for each.

    Returns:
        Each group's, by the axis of its leading layer.
    """
    kept = {row.network: _kept(folder / row.network) for row in rows if isinstance(row, CutRow)}
    return [
        NetworkWidths(
            name=group.name,
            channels=group.channels,
            kept={
                network: _width(indices.get((group.leading.key, group.leading.dim)), group.channels)
                for network, indices in kept.items()
                if indices is not None
            },
        )
        for group in graph.groups
    ]


def _kept(place: Path) -> Mapping[tuple[str, int], Blocks] | None:
    """What a network keeps; None where its tool did not leave it."""
    if (place / "plan.json").is_file():
        return planned_indices(Plan.read(place / "plan.json").keep)
    return stored_indices(place / "kept.safetensors") if (place / "kept.safetensors").is_file() else None


def _width(blocks: Blocks | None, channels: int) -> int:
    return channels if blocks is None else sum(len(block) for block in blocks)
