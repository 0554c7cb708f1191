"""The network's groups as a page's script draws them, with their members and scores."""

from __future__ import annotations

from typing import Any

from .group_details import Members, RunGroups
from .network_stages import is_worth_folding, stages_of
from .records import Report


def group_picture(report: Report, members: RunGroups) -> dict[str, Any]:
    """The data of the picture of groups.

    Args:
        report: What a run came to.
        members: Who makes and reads each group, and its scores.

    Returns:
        Columns with an entry for each group that the report has too; layers are places in `layers`.
    """
    widths = {group.name: group for group in report.groups}
    groups = [group for group in members.groups if group.name in widths]
    names = [group.name for group in groups]
    places = {name: index for index, name in enumerate(names)}
    stages = stages_of(names)
    layers: dict[str, int] = {}

    def indexed(entry: Members) -> tuple[list[int], int]:
        return [layers.setdefault(layer, len(layers)) for layer in entry.layers], entry.more

    channels = [widths[name].channels for name in names]
    kept = [widths[name].kept_channels or 0 for name in names]
    lost = [whole - left for whole, left in zip(channels, kept, strict=True)]
    return {
        "kind": "groups",
        "criterion": members.criterion,
        "names": names,
        "stages": stages if is_worth_folding(stages) else [],
        "channels": channels,
        "kept": kept,
        "first": lost.index(max(lost)) if lost else 0,
        "edges": [[places[g.name], places[fed]] for g in groups for fed in g.feeds if fed in places],
        "madeBy": [indexed(group.made_by) for group in groups],
        "passes": [indexed(group.passes) for group in groups],
        "readBy": [indexed(group.read_by) for group in groups],
        "layers": list(layers),
        "barriers": [group.barriers for group in groups],
        "barrierNames": [f"{barrier.op or 'no op'} in {barrier.module}" for barrier in report.barriers],
        "scores": [group.scores and group.scores.to_data() for group in groups],
        "unscored": [group.unscored for group in groups],
    }
