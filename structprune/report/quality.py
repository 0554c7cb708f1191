"""The part of a report on quality: what a judge measured of the networks of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..judge import Quality


def quality_record(measured: Mapping[str, Quality], random_weights: bool = False) -> dict[str, Any]:
    """What report.json says of quality (see docs/report.md).

    Args:
        measured: by stage, `dense` among them.
        random_weights: whether the dense network was never trained, which agreement with it says little of.
    """
    dense = measured["dense"]
    blind = not dense.labelled
    record: dict[str, Any] = {
        "metric": dense.metric,
        "images": dense.n,
        "higher_is_better": dense.higher_is_better,
        **({"random_weights": random_weights} if blind else {}),
        **{stage: quality.value for stage, quality in measured.items()},
    }
    names = [name for name in dense.likeness if not blind or name != dense.metric]
    beside = {name: {stage: quality.likeness.get(name) for stage, quality in measured.items()} for name in names}
    if blind and "kl" in beside:
        record["kl"] = beside.pop("kl")
    others = {name: {stage: quality.others.get(name) for stage, quality in measured.items()} for name in dense.others}
    return {**record, "others": others, "likeness": beside}
