"""Removed channels leave their mean behind, folded into the offset of each layer that consumed them.

E.g. Ye et al., Rethinking the Smaller-Norm-Less-Informative Assumption, ICLR 2018, section 3, for constant channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..calibration import Batch, Observer, WritableNetwork
from ..calibration.layout import channels_last
from ..calibration.spread import AT_ONCE
from ..graph.layers import Layer
from ..memory_limits import LIMIT, parts
from ..modules import evaluating
from ..recipe.recovery import RECOVERIES, MeansSpec
from ..records import Plan
from .layers_behind import loses_inputs, unreached
from .recovery import Mending, Recovery
from .recurrent import RecurrentMeans
from .slim_outputs import channels_of, cluster_means, keeps, merged_into, slim_outputs


def fold_means(
    dense: WritableNetwork,
    slim: WritableNetwork,
    plan: Plan,
    batches: Sequence[Batch],
    *,
    from_batchnorm: bool = False,
    memory: float = LIMIT,
) -> dict[str, bool]:
    """Adds to each layer that lost inputs what those inputs' means made of its output; {weight's key: whether exactly}.

    Means are over the images and places of `batches`, or, with `from_batchnorm`, what the BatchNorms before the layer
    say (one batch then gives the sizes only). A constant input makes a constant output but at zero-padded borders,
    where the offset is the mean over all places and so an approximation.

    Inputs that were merged are no constants: they have left a channel behind, whose own mean, layer by layer from the
    input, is what the slim network makes of it by now. It is taken from the sum; from BatchNorms it is that of the
    members.
    """
    slim.notes += unreached(slim, plan)
    batches = channels_last(dense, batches, memory)
    chosen = _shiftable(dense, slim, plan)
    known = {layer: _expected(dense, layer) for layer in chosen} if from_batchnorm else {}
    for layer in [layer for layer, mean in known.items() if mean is None]:
        slim.notes.append(f"{layer.module} does not read channels straight from BatchNorms, so their means are unknown")
        chosen.remove(layer)
    totals = _Seen(chosen)
    recurrent = None if from_batchnorm else RecurrentMeans(dense, slim, plan)
    watch = {} if recurrent is None else recurrent.watch()
    with evaluating(dense.module):
        for batch in batches[:1] if from_batchnorm else batches:
            with Observer({**watch, **{layer.site: totals.at(layer) for layer in chosen}}):
                batch.inputs.call(dense.module)
    exact, sweep = {}, slim.sweep(batches, memory)
    for layer in sorted(chosen, key=lambda layer: layer.place):
        args = totals.arguments[layer]
        mean = known[layer] if from_batchnorm else totals.sums[layer] / totals.counts[layer]
        assert mean is not None
        mean = mean.to(dense.state[layer.weight].device)
        if _loses_by_merging(layer, plan) and not from_batchnorm:
            offsets, same = _offset(layer, args, mean)
            here = _Seen([layer])
            sweep.go(layer.place, here.add_to(layer))
            stays, _ = _offset(layer, here.arguments[layer], here.sums[layer] / here.counts[layer])
        else:
            offsets, same = _offset(layer, args, _removed(mean, layer, plan, dense.state[layer.weight]))
            stays = torch.zeros_like(offsets[:1])
        slim.shift(layer, slim_outputs(layer, dense, slim, plan, offsets, offsets=True) - stays)
        exact[layer.weight] = same
    if recurrent is not None:
        exact |= recurrent.fold()
    rough = sum(not same for same in exact.values())
    if rough:
        slim.notes.append(f"means are approximate at the zero-padded borders of {rough} of {len(exact)} layers")
    return exact


def _shiftable(dense: WritableNetwork, slim: WritableNetwork, plan: Plan) -> list[Layer]:
    """The layers that lost inputs and have an offset of their own; notes say which have none."""
    chosen = []
    for layer in dense.layers:
        if not loses_inputs(layer, plan):
            continue
        if slim.can_shift(layer):
            chosen.append(layer)
        else:
            slim.notes.append(f"{layer.module} has no bias and no BatchNorm of its own to take the means of its inputs")
    return chosen


class _Seen:
    """Sums of the inputs of layers by channel, and the arguments of a call."""

    def __init__(self, layers: list[Layer]) -> None:
        self.sums: dict[Layer, Tensor] = {}
        self.counts: dict[Layer, int] = dict.fromkeys(layers, 0)
        self.arguments: dict[Layer, tuple[Any, ...]] = {}  # of one image

    def at(self, layer: Layer) -> Callable[[tuple[Any, ...], Any], None]:
        add = self.add_to(layer)
        return lambda args, result: add(0, args)

    def add_to(self, layer: Layer) -> Callable[[int, tuple[Any, ...]], None]:
        def see(batch: int, args: tuple[Any, ...]) -> None:
            x = layer.input_of(args)
            axis = layer.axis % x.dim()
            others = [d for d in range(x.dim()) if d != axis]
            self.sums[layer] = x.sum(others, dtype=torch.float64) + self.sums.get(layer, 0)
            self.counts[layer] += x.numel() // x.shape[axis]
            own = x[:1].to("meta")  # its shape, without the batch's memory
            self.arguments[layer] = tuple(own if value is x else value for value in args)

        return see


def _expected(dense: WritableNetwork, layer: Layer) -> Tensor | None:
    expectation = dense.expected(layer)
    return None if expectation is None else expectation.mean


def _loses_by_merging(layer: Layer, plan: Plan) -> bool:
    return plan.merges is not None and str(0 if layer.transposed else 1) in plan.merges["axes"].get(layer.weight, {})


def _removed(mean: Tensor, layer: Layer, plan: Plan, weight: Tensor) -> Tensor:
    """The means of the channels that go, zero for those that stay. Of those that are merged what they differ from the
    mean of all that are merged with them."""
    dim, axis = (0 if layer.transposed else 1), weight.shape[0 if layer.transposed else 1]
    into = merged_into(plan, layer.weight, dim, axis, len(mean))
    if into is not None:
        return mean - cluster_means(mean, into)
    removed = mean.clone()
    removed[channels_of(keeps(plan, layer.weight, dim), axis, len(mean))] = 0
    return removed


def _offset(layer: Layer, args: tuple[Any, ...], mean: Tensor) -> tuple[Tensor, bool]:
    """What a layer makes of inputs that are `mean` everywhere, less its bias, and whether it is the same everywhere."""
    x, weight = layer.input_of(args), args[layer.argument_place("weight") or 0]
    with torch.no_grad():
        if layer.kind == "linear":
            each = 8.0 * weight.shape[1]
            return torch.cat([weight[part].double() @ mean for part in parts(len(weight), each, AT_ONCE)]), True
        constant = mean.reshape(1, -1, *[1] * (x.dim() - 2)).expand(1, -1, *x.shape[2:]).contiguous()
        outputs = layer.without_bias(args, constant)[0].flatten(1)
    same = bool((outputs - outputs[:, :1]).abs().max() <= 1e-9 * outputs.abs().max().clamp_min(1e-300))
    return outputs.mean(1), same


def _mend(spec: MeansSpec, mending: Mending) -> int:
    plan, batches = mending.plan, mending.batches
    dense, slim, plan, batches = mending.dense, mending.slim, mending.plan, mending.batches
    from_batchnorm = not spec.needs_images
    return len(fold_means(dense, slim, plan, batches, from_batchnorm=from_batchnorm, memory=mending.memory))


RECOVERIES.add(Recovery("means", "removed channels leave their mean in consumers' offsets", MeansSpec, _mend))
