"""BatchNorm statistics taken anew on calibration images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ..calibration import Batch, Sweep, Working

LEAST = 32  # values a channel, under which a variance says little


def reestimate(
    slim: Working, batches: Sequence[Batch], progress: Callable[[float], None] = lambda share: None
) -> dict[str, int]:
    """Sets each BatchNorm's running mean and variance to those of all its inputs, from the first to the last, each on
    what the ones before make with their new statistics; {the running mean's key: values a channel}.

    No momentum and no average over batches: mean and (unbiased) variance over all images and places at once.
    """
    calls = Counter(norm.mean for norm in slim.norms)
    norms = [norm for norm in slim.norms if calls[norm.mean] == 1]
    for module in sorted({norm.module for norm in slim.norms if calls[norm.mean] > 1}):
        slim.notes.append(f"{module} is called several times and keeps its statistics")
    sweep = Sweep(slim.module, slim.captured, [batch.inputs for batch in batches])
    found: dict[str, int] = {}
    for number, norm in enumerate(norms):
        progress(number / len(norms))
        count, first, second, origin = 0, None, None, None
        for args in sweep.until(norm.place):
            values = args[0].transpose(0, 1).flatten(1).double()
            origin = values.mean(1, keepdim=True) if origin is None else origin  # about which nothing cancels
            values = values - origin
            sums = (values.sum(1), values.square().sum(1))
            first, second = sums if first is None or second is None else (first + sums[0], second + sums[1])
            count += values.shape[1]
        if first is None or second is None or origin is None or count < 2:
            slim.notes.append(f"{norm.module} sees {count} values a channel and keeps its statistics")
            continue
        variance = (second - first.square() / count) / (count - 1)
        slim.write(norm.mean, (first / count + origin[:, 0]).to(slim.state[norm.mean]))
        slim.write(norm.variance, variance.clamp_min(0).to(slim.state[norm.variance]))
        found[norm.mean] = count
    few = [count for count in found.values() if count < LEAST]
    if few:
        slim.notes.append(
            f"{len(few)} BatchNorms saw as few as {min(few)} values a channel: give more calibration images"
        )
    return found
