"""BatchNorm statistics taken anew on calibration images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ..calibration import Batch, Spread, WritableNetwork
from ..memory_limits import LIMIT
from ..recipe.recovery import RECOVERIES, BatchNormSpec
from .recovery import Mending, Recovery

LEAST = 32  # values a channel, under which a variance says little


def reestimate(
    slim: WritableNetwork,
    batches: Sequence[Batch],
    *,
    memory: float = LIMIT,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, int]:
    """Sets each BatchNorm's running mean and variance to those of all its inputs, from the first to the last, each on
    what the ones before make with their new statistics; {the running mean's key: values a channel}.

    No momentum and no average over batches: mean and (unbiased) variance over all images and places at once.
    """
    calls = Counter(norm.mean for norm in slim.norms)
    norms = [norm for norm in slim.norms if calls[norm.mean] == 1]
    for module in sorted({norm.module for norm in slim.norms if calls[norm.mean] > 1}):
        slim.notes.append(f"{module} is called several times and keeps its statistics")
    sweep = slim.sweep(batches, memory)
    counts: dict[str, int] = {}
    for number, norm in enumerate(norms):
        progress(number / len(norms))
        spread = Spread()

        def see(batch: int, args: tuple[Any, ...], spread: Spread = spread) -> None:
            if args[0].numel():
                spread.add(args[0].transpose(0, 1))

        sweep.go(norm.place, see)
        if spread.count < 2:
            slim.notes.append(f"{norm.module} sees {spread.count} values a channel and keeps its statistics")
            continue
        variance = spread.variance() * (spread.count / (spread.count - 1))
        slim.write(norm.mean, spread.mean().to(slim.state[norm.mean]))
        slim.write(norm.variance, variance.to(slim.state[norm.variance]))
        counts[norm.mean] = spread.count
    few = [count for count in counts.values() if count < LEAST]
    if few:
        slim.notes.append(
            f"{len(few)} BatchNorms saw as few as {min(few)} values a channel: give more calibration images"
        )
    return counts


def _mend(spec: BatchNormSpec, mending: Mending) -> int:
    return len(reestimate(mending.slim, mending.batches, memory=mending.memory, progress=mending.progress))


RECOVERIES.add(Recovery("batchnorm", "running means and variances are taken anew", BatchNormSpec, _mend))
