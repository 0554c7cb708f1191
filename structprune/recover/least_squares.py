"""Least squares of a layer's weights, so that on what reaches it by now it makes what the dense network's layer made.

Layer by layer from the input: the inputs are those of the slim network as mended so far, the wanted outputs are the
dense network's own (the asymmetric reconstruction of He et al., Channel Pruning for Accelerating Very Deep Neural
Networks, ICCV 2017, section 3.2; one scale a channel is Luo et al., ThiNet, ICCV 2017, section 3.2, equation 7).
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..calibration import Batch, Layer, Observer, Sweep, Working, sample
from ..modules import evaluating
from ..records import Plan
from .moments import FOLDS, Moments, Solution, full, ridge_solution, scales

ROWS_PER_INPUT = 8  # rows that are sampled for each unknown of an output
PLACES_PER_IMAGE = 16  # at least


def refit(
    dense: Working,
    slim: Working,
    plan: Plan,
    batches: Sequence[Batch],
    *,
    per_channel: bool = False,
    ridge: float | None = None,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Solution]:
    """Fits the weights of every layer that lost inputs and writes them to `slim`; what was found for each layer.

    With `per_channel` one factor for each input channel, else all weights. `ridge` holds them near what they were, in
    shares of the mean variance of an input; None chooses it for each layer by cross-validation over the batches.
    """
    chosen = [layer for layer in slim.layers if _wanted(layer, slim, plan)]
    images = sum(batch.images for batch in batches)
    inputs = {layer: int(slim.state[layer.weight][0].numel()) for layer in chosen}
    each = {layer: max(PLACES_PER_IMAGE, -(-ROWS_PER_INPUT * inputs[layer] // images)) for layer in chosen}
    wanted = _dense_outputs(dense, chosen, batches, each, seed)
    sweep = Sweep(slim.module, slim.captured, [batch.inputs for batch in batches])
    found: dict[str, Solution] = {}
    slim.notes += unreached(slim, plan)
    few = []
    for number, layer in enumerate(chosen):
        progress(number / len(chosen))
        arguments = sweep.until(layer.place)
        outputs, weight = keeps(plan, layer.weight, 0), slim.state[layer.weight].detach()
        origin: tuple[Tensor, Tensor] | None = None
        folds: list[Moments | None] = [None] * min(FOLDS, len(batches))
        for b, (args, target) in enumerate(zip(arguments, wanted.pop(layer), strict=True)):
            x = sample(layer.op, args, each[layer], _generator(seed, layer, b)).blocks(weight)
            y = _as_slim(layer, dense, slim, target if outputs is None else target[:, outputs], outputs)
            if layer.bias and not slim.can_shift(layer):
                y = y - slim.state[layer.bias]  # which others share, so that it stays
            y = y.reshape(len(y), len(x), -1).transpose(0, 1)
            if origin is None:  # about which nothing cancels
                origin = (x.mean(1, keepdim=True), y.mean(1, keepdim=True))
                if not slim.can_shift(layer):
                    origin = (torch.zeros_like(origin[0]), torch.zeros_like(origin[1]))
            made = Moments.of(x - origin[0], y - origin[1], intercept=slim.can_shift(layer))
            fold = b * len(folds) // len(arguments)
            held = folds[fold]
            folds[fold] = made if held is None else held + made
        assert origin is not None
        parts = [fold for fold in folds if fold is not None]
        found[layer.weight] = _solve(layer, slim, parts, origin, per_channel, ridge)
        if sum(part.rows for part in parts) < 2 * inputs[layer]:
            few.append((layer, sum(part.rows for part in parts), inputs[layer], found[layer.weight].ridge))
    if few:
        layer, rows, unknowns, used = min(few, key=lambda entry: entry[1] / entry[2])
        slim.notes.append(
            f"{len(few)} of {len(chosen)} layers had fewer than two rows for each unknown (the worst, {layer.module}, "
            f"{rows:.0f} rows for {unknowns}; ridge {used:g}): give more calibration images"
        )
    kept = [key for key, solution in found.items() if math.isinf(solution.ridge)]
    if kept:
        slim.notes.append(f"{len(kept)} of {len(found)} layers keep their weights, as no fit was better on unseen rows")
    return found


def keeps(plan: Plan, key: str, dim: int) -> Any:
    """The kept indices of an axis of a parameter, None where all stay."""
    return plan.keep.get(key, {}).get(str(dim))


def unreached(slim: Working, plan: Plan) -> list[str]:
    """A note on weights that lost inputs and are no convolution's or linear layer's own: computed ones, for example."""
    known = {layer.weight for layer in slim.layers}
    lost = [k for k in plan.keep if "1" in plan.keep[k] and k not in known and slim.state[k].dim() > 1]
    return [f"no layer holds {', '.join(lost[:3])} itself, so what reads it is not mended"] if lost else []


def loses_inputs(layer: Layer, plan: Plan) -> bool:
    return keeps(plan, layer.weight, 0 if layer.transposed else 1) is not None


def _wanted(layer: Layer, slim: Working, plan: Plan) -> bool:
    if not loses_inputs(layer, plan):
        return False
    if layer.transposed:
        slim.notes.append(f"{layer.module}: transposed convolutions are not refitted")
        return False
    if Counter(other.weight for other in slim.layers)[layer.weight] > 1:
        slim.notes.append(f"{layer.module}: several calls share {layer.weight}, so it is not refitted")
        return False
    return True


def _generator(seed: int, layer: Layer, batch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed + 7919 * layer.place + 104729 * batch)


def _dense_outputs(
    dense: Working, layers: list[Layer], batches: Sequence[Batch], each: dict[Layer, int], seed: int
) -> dict[Layer, list[Tensor]]:
    """What the dense network's layers make at the sampled places, for each batch."""
    found: dict[Layer, list[Tensor]] = {layer: [] for layer in layers}

    def see(layer: Layer, batch: int) -> Callable[[tuple[Any, ...], Any], None]:
        def keep(args: tuple[Any, ...], result: Tensor) -> None:
            rows = sample(layer.op, args, each[layer], _generator(seed, layer, batch), windows=False)
            found[layer].append(rows.outputs(result, -1 if layer.op == "linear" else 1))

        return keep

    with evaluating(dense.module):
        for b, batch in enumerate(batches):
            with Observer({layer.site: see(layer, b) for layer in layers}):
                batch.inputs.call(dense.module)
    return found


def _as_slim(layer: Layer, dense: Working, slim: Working, y: Tensor, outputs: Any) -> Tensor:
    """What the slim layer must make so that its BatchNorm makes of it what the dense one makes of y."""
    if layer.norm is None:
        return y
    there, here = ((net.state[layer.norm.mean], net.state[layer.norm.variance]) for net in (dense, slim))
    mean, variance = there if outputs is None else (t[outputs] for t in there)
    return (y - mean) * ((here[1] + layer.norm.eps) / (variance + layer.norm.eps)).sqrt() + here[0]


def _solve(
    layer: Layer,
    slim: Working,
    folds: list[Moments],
    origin: tuple[Tensor, Tensor],
    per_channel: bool,
    ridge: float | None,
) -> Solution:
    weight = slim.state[layer.weight].detach().double()
    ox, oy = (value.squeeze(1).double() for value in origin)
    bias = weight.new_zeros(weight.shape[0])
    if layer.bias and slim.can_shift(layer):
        bias = slim.state[layer.bias].detach().double()
    given = weight.reshape(len(ox), -1, weight[0].numel())
    places = math.prod(weight.shape[2:])
    solve = functools.partial(scales, places=places) if per_channel else full
    solution = ridge_solution(folds, given, bias.reshape(len(ox), -1) - oy + _times(given, ox), ridge, solve)
    if math.isfinite(solution.ridge):
        slim.write(layer.weight, solution.weight)
        if slim.can_shift(layer):
            slim.shift(layer, (solution.bias + oy - _times(solution.weight, ox)).flatten() - bias)
    return solution


def _times(weight: Tensor, x: Tensor) -> Tensor:
    return (weight @ x.unsqueeze(2)).squeeze(2)
