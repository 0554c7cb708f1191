"""What an exported file says of itself: how images become its inputs, what its outputs mean, and where it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..records import Plan
from ..store.weights import digest


def metadata_of(
    plan: Plan | None,
    *,
    model: str = "",
    task: str = "",
    images: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
) -> dict[str, str]:
    """The texts that exported files carry.

    Args:
        plan: What was cut; None for the dense network.
        model: Its name in reports.
        task: What it is for.
        images: How an image becomes an input: `input_size`, `mean`, `std`, `interpolation` and what else is known.
        labels: What the classes are called, in the order of the outputs.

    Returns:
        Texts by name; `structprune.images` and `structprune.labels` are JSON. What is not known is left out.
    """
    from .. import __version__

    texts = {
        "version": __version__,
        "network": "dense" if plan is None else "slim",
        "model": model,
        "task": task,
        "images": json.dumps(dict(images)) if images else "",
        "labels": json.dumps(list(labels), ensure_ascii=False) if labels else "",
    }
    if plan is not None:
        texts |= {"macs": str(plan.macs["slim"]), "params": str(plan.params["slim"]), "plan": digest(plan)}
    return {f"structprune.{name}": text for name, text in texts.items() if text}
