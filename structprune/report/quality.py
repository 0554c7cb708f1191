"""The part of a report on quality: what a judge measured of the networks of a run."""

from __future__ import annotations

from collections.abc import Mapping

from .. import quality_judge
from .records import Quality


def quality_record(measured: Mapping[str, quality_judge.Quality], random_weights: bool = False) -> Quality:
    """What report.json says of quality.

    Args:
        measured: By stage, `dense` among them.
        random_weights: Whether the dense network was never trained, so that agreement with it says little.

    Returns:
        The record. What was not measured is not set.
    """
    dense = measured["dense"]
    is_blind = not dense.labelled
    names = [name for name in dense.likeness if not is_blind or name != dense.metric]
    likeness = {name: {stage: quality.likeness.get(name) for stage, quality in measured.items()} for name in names}
    others = {name: {stage: quality.others.get(name) for stage, quality in measured.items()} for name in dense.others}
    without_labels = {"random_weights": random_weights} if is_blind else {}
    return Quality.model_validate(
        {
            "metric": dense.metric,
            "images": dense.n,
            "higher_is_better": dense.higher_is_better,
            **without_labels,
            **{stage: quality.value for stage, quality in measured.items()},
            **({"kl": likeness.pop("kl")} if is_blind and "kl" in likeness else {}),
            "others": others,
            "likeness": likeness,
        }
    )
