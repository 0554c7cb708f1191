"""One factor on class scores, by which their probabilities come nearest to the dense network's.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2 (temperature scaling), towards what the
dense network makes of calibration images, where they have labels. A least squares fit of noisy inputs makes smaller
outputs than it was shown, layer by layer; what is left of that in the end is one factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from ..calibration import WritableNetwork
from ..graph.layers import Layer, sole_layers
from ..graph.recorded_calls import is_returned
from ..memory_limits import amount
from ..modules import evaluating
from ..ops import outputs
from ..recipe.recovery import RECOVERIES, TemperatureSpec
from .moments import FOLDS
from .recovery import Mending, Recovery

MOST = 8.0  # times as large or as small
SAME = 0.01  # how far from 1 a factor changes next to nothing

Pair = tuple[Tensor, Tensor]  # class scores (samples, classes): the dense network's, and the slim one's


def best_factor(pairs: Sequence[Pair]) -> float:
    """The factor s that makes KL(softmax(dense) ‖ softmax(s · slim)) least, the mean over all samples.

    Args:
        pairs: class scores of both networks, batch by batch, each (samples, classes).

    Returns:
        A number from 1 / `MOST` to `MOST`; the divergence is convex in it.
    """
    limit = math.log(MOST)
    minimum = minimize_scalar(
        lambda power: divergence(pairs, math.exp(power)), bounds=(-limit, limit), method="bounded"
    )
    return float(math.exp(minimum.x))


def divergence(pairs: Sequence[Pair], factor: float = 1.0) -> float:
    """The mean KL divergence in nats of the probabilities by `factor` times the slim network's scores from the dense
    network's."""
    total = sum(
        float(
            F.kl_div(
                (slim.double() * factor).log_softmax(1), dense.double().log_softmax(1), log_target=True, reduction="sum"
            )
        )
        for dense, slim in pairs
    )
    return total / sum(len(dense) for dense, _ in pairs)


def _last_layer(slim: WritableNetwork) -> Layer | None:
    """The layer whose outputs, and nothing else, are what the network returns, if it alone reads its weights."""
    for layer in sole_layers(slim.recording).values():
        if layer.norm is None and is_returned(slim.recording, layer.place):
            return layer
    return None


def _scores(mending: Mending) -> list[Pair] | str:
    """Class scores of the calibration images by both networks, or why there are none."""
    pairs: list[Pair] = []
    size = 0
    with evaluating(mending.dense.module), evaluating(mending.slim.module):
        for number, batch in enumerate(mending.batches):
            mending.progress(number / len(mending.batches))
            dense, slim = (outputs(batch.inputs.call(net.module)) for net in (mending.dense, mending.slim))
            if len(dense) != 1 or dense[0].dim() != 2 or dense[0].shape[1] < 2:
                shapes = ", ".join(str(tuple(x.shape)) for x in dense)
                return f"the network returns {shapes}, and not one tensor of class scores (samples, classes)"
            size += 2 * dense[0].numel() * dense[0].element_size()
            if size > mending.memory and len(pairs) >= FOLDS:
                mending.slim.notes.append(
                    f"temperature looked at {len(pairs)} of {len(mending.batches)} batches, whose class scores are as "
                    f"many as memory ({amount(mending.memory)}) allows"
                )
                break
            pairs.append((dense[0], slim[0]))
    return pairs


def _unseen(pairs: Sequence[Pair]) -> float:
    """The divergence by factors that each quarter of the samples is not used for."""
    folds = min(FOLDS, len(pairs))
    total = count = 0.0
    for fold in range(folds):
        held = [pair for number, pair in enumerate(pairs) if number * folds // len(pairs) == fold]
        rest = [pair for number, pair in enumerate(pairs) if number * folds // len(pairs) != fold]
        samples = sum(len(dense) for dense, _ in held)
        total, count = total + samples * divergence(held, best_factor(rest or held)), count + samples
    return total / count


def _mend(spec: TemperatureSpec, mending: Mending) -> int:
    slim, task = mending.slim, mending.task
    layer = _last_layer(slim)
    if task is not None and not task.scores_classes:
        slim.notes.append(f"temperature changed nothing: what task {task.name} is about are no class scores")
        return 0
    if layer is None:
        slim.notes.append("temperature changed nothing: no convolution or linear layer of its own makes the scores")
        return 0
    pairs = _scores(mending)
    if isinstance(pairs, str):
        slim.notes.append(f"temperature changed nothing: {pairs}")
        return 0
    factor, before = best_factor(pairs), divergence(pairs)
    if abs(factor - 1) < SAME or not _unseen(pairs) < before:
        slim.notes.append(
            f"temperature changed nothing: no other size of the scores is better on unseen images ({before:.3g} nats)"
        )
        return 0
    with torch.no_grad():
        for key in (layer.weight, layer.bias):
            if key is not None:
                slim.write(key, slim.state[key] * factor)
    slim.notes.append(
        f"temperature: scores are {factor:.3g} times as large, so that KL from the dense network on calibration images"
        f" fell from {before:.3g} to {divergence(pairs, factor):.3g}"
    )
    return 1


RECOVERIES.add(Recovery("temperature", "class scores become as sure as the dense network's", TemperatureSpec, _mend))
