"""One factor on class scores, by which their probabilities come nearest to the dense network's.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2 (temperature scaling), towards what the
dense network makes of calibration images, where they have labels. A least squares fit of noisy inputs makes smaller
outputs than it was shown, layer by layer; what is left of that in the end is one factor.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from ..calibration import WritableNetwork
from ..graph.layers import Layer, sole_layers
from ..graph.recorded_calls import is_returned
from ..memory_limits import amount
from ..modules import evaluating
from ..ops import outputs
from ..recipe.recovery import RECOVERIES, TemperatureSpec
from ..tasks.distance import divergence
from .moments import FOLDS
from .recovery import Mending, Recovery

MOST = 8.0  # times as large or as small
SAME = 0.01  # how far from 1 a factor changes next to nothing
AT_ONCE = 256  # samples whose probabilities are held in float64


def best_factor(dense: Tensor, slim: Tensor) -> float:
    """The factor s that makes KL(softmax(dense) ‖ softmax(s · slim)) least, the mean over all samples.

    Args:
        dense: The dense network's class scores, shape (samples, classes).
        slim: The slim network's, of the same shape.

    Returns:
        A number from 1 / `MOST` to `MOST`; the divergence is convex in it.
    """
    limit = math.log(MOST)
    minimum = minimize_scalar(
        lambda power: loss(dense, slim, math.exp(power)), bounds=(-limit, limit), method="bounded"
    )
    return float(math.exp(minimum.x))


def loss(dense: Tensor, slim: Tensor, factor: float = 1.0) -> float:
    """The mean KL divergence in nats of the probabilities by `factor` times the slim network's scores from the dense
    network's."""
    pairs = zip(dense.split(AT_ONCE), slim.split(AT_ONCE), strict=True)
    return sum(len(a) * divergence([[a]], [[b.double() * factor]]) for a, b in pairs) / len(dense)


def _last_layer(slim: WritableNetwork) -> Layer | None:
    """The layer whose outputs, and nothing else, are what the network returns, if it alone reads its weights."""
    for layer in sole_layers(slim.recording).values():
        if layer.norm is None and not layer.computes_bias and is_returned(slim.recording, layer.place):
            return layer
    return None


def _scores(mending: Mending) -> tuple[Tensor, Tensor] | str:
    """Class scores of the calibration images by both networks, or why there are none."""
    pairs: list[tuple[Tensor, Tensor]] = []
    size = 0
    with evaluating(mending.dense.module), evaluating(mending.slim.module):
        for number, batch in enumerate(mending.batches):
            mending.progress(number / len(mending.batches))
            dense, slim = (outputs(batch.inputs.call(net.module)) for net in (mending.dense, mending.slim))
            if len(dense) != 1 or dense[0].dim() != 2 or dense[0].shape[1] < 2:
                shapes = ", ".join(str(tuple(x.shape)) for x in dense)
                return f"the network returns {shapes}, and not one tensor of class scores (samples, classes)"
            size += 2 * dense[0].numel() * dense[0].element_size()
            if size > mending.memory and pairs:
                mending.slim.notes.append(
                    f"temperature looked at {len(pairs)} of {len(mending.batches)} batches, whose class scores are as "
                    f"many as memory ({amount(mending.memory)}) allows"
                )
                break
            pairs.append((dense[0], slim[0]))
    dense_scores, slim_scores = (torch.cat(scores) for scores in zip(*pairs, strict=True))
    return dense_scores, slim_scores


def _unseen(dense: Tensor, slim: Tensor) -> float:
    """The loss of each quarter of the samples by the factor that is best for the others."""
    total = 0.0
    for held in torch.arange(len(dense)).chunk(FOLDS):
        rest = torch.ones(len(dense), dtype=torch.bool)
        rest[held] = False
        total += len(held) * loss(dense[held], slim[held], best_factor(dense[rest], slim[rest]))
    return total / len(dense)


def _mend(spec: TemperatureSpec, mending: Mending) -> int:
    reason = _why_not(mending)
    if reason:
        mending.slim.notes.append(f"temperature changed nothing: {reason}")
    return int(not reason)


def _why_not(mending: Mending) -> str:
    """Mends the last layer, or says why it stays as it is."""
    slim, task = mending.slim, mending.task
    if task is not None and not task.scores_classes:
        return f"what task {task.name} is about are no class scores"
    layer = _last_layer(slim)
    if layer is None:
        return "no convolution or linear layer of its own makes the scores"
    scores = _scores(mending)
    if isinstance(scores, str):
        return scores
    if len(scores[0]) < FOLDS:
        return f"{len(scores[0])} images can't tell whether other scores are better: give {FOLDS} or more"
    factor, before = best_factor(*scores), loss(*scores)
    if abs(factor - 1) < SAME or not _unseen(*scores) < before:
        return f"no other size of the scores is better on unseen images ({before:.3g} nats)"
    for key in (layer.weight, layer.bias):
        if key is not None:
            slim.write(key, slim.state[key].detach() * factor)
    slim.notes.append(
        f"temperature: scores are {factor:.3g} times as large, so that KL from the dense network on calibration images"
        f" fell from {before:.3g} to {loss(*scores, factor):.3g}"
    )
    return ""


RECOVERIES.add(Recovery("temperature", "class scores become as sure as the dense network's", TemperatureSpec, _mend))
