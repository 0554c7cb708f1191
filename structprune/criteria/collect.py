"""Gathers what criteria need: builds the views of groups, from weights and from what is seen on calibration images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from ..calibration import Batch, Layer, Observer, Sweep, Working, sample
from ..calibration.expectation import POINTWISE, TRANSPARENT, step
from ..calibration.layers import ops
from ..errors import RecipeError
from ..graph import DependencyGraph, Group
from ..graph.capture import op_name, outputs
from ..graph.recorder import leaves_of
from ..modules import evaluating, plain_transformers
from .views import Activation, Consumer, GroupView, Norm, Weights

ROWS_PER_CHANNEL, ROWS_PER_INPUT = 10, 2  # how many rows are sampled at least for a consumer
PLACES_PER_IMAGE = 10  # as in Luo et al. 2017


@dataclass
class Site:
    """Where a group's channels are seen: at a call of a layer, entering it (a consumer) or leaving it."""

    layer: Layer
    index: Tensor  # (positions of the layer's channel axis, k)
    weight: Weights | None

    @property
    def axis(self) -> int:
        return -1 if self.layer.op == "linear" else 1

    def seen(self, args: Sequence[Any], result: Tensor) -> Tensor:
        return args[0] if self.weight is not None else result


@dataclass
class Seen:
    """One batch's tensors at the sites of groups, and gradients of weights."""

    values: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)


class Collector:
    """Knows the layers of a traced model and makes views of its groups. `working` holds weights that may change."""

    def __init__(self, graph: DependencyGraph, seed: int) -> None:
        self.graph, self.seed = graph, seed
        self.working = Working.of(graph.model, graph.inputs)
        self.by_weight: dict[str, list[Layer]] = {}
        for layer in self.working.layers:
            self.by_weight.setdefault(layer.weight, []).append(layer)
        self._nodes = ops(self.working.captured)
        self._norms = {norm.weight: norm for norm in self.working.norms if norm.weight}

    # --- views --------------------------------------------------------------------------------------------

    def view(self, group: Group, number: int, **parts: Any) -> GroupView:
        gradients = parts.pop("gradients", {})
        weights = tuple(
            Weights(s.key, s.dim, s.role, _tensor(s.index), self.working.state[s.key].detach(), gradients.get(s.key))
            for s in group.slices
        )
        generator = torch.Generator().manual_seed(self.seed * 100003 + number)
        return GroupView(group.name, group.units, weights, generator=generator, **parts)

    def norms(self, group: Group) -> tuple[Norm, ...]:
        """The BatchNorms that scale a group's channels, in the order of the network."""
        found = []
        for s in group.slices:
            norm = self._norms.get(s.key)
            if norm is not None:
                state = self.working.state
                scale = state[s.key].detach()
                shift = state[norm.bias].detach() if norm.bias else torch.zeros_like(scale)
                after = activation_after(self._nodes[norm.place])
                found.append(
                    (
                        norm.place,
                        Norm(
                            norm.module, _tensor(s.index), scale, shift, state[norm.mean], state[norm.variance], after
                        ),
                    )
                )
        return tuple(norm for _, norm in sorted(found, key=lambda pair: pair[0]))

    def consumers(self, group: Group) -> list[Site]:
        return [site for s in group.slices if s.role == "consumer" for site in self._sites(group, s, True)]

    def sites(self, group: Group) -> list[Site]:
        """The consumers of a group's channels; if no layer consumes them, the layers that make them."""
        made = [site for s in group.slices if s.role == "filter" for site in self._sites(group, s, False)]
        return self.consumers(group) or made

    def _sites(self, group: Group, s: Any, consumes: bool) -> Iterator[Site]:
        weight = self.working.state[s.key]
        for layer in self.by_weight.get(s.key, ()):
            out = 1 if layer.transposed else 0
            if (s.dim == out) == consumes or s.dim > 1:
                continue
            channels = self._channels(layer) if consumes else weight.shape[0] * (1 if not layer.transposed else 0)
            index = _tensor(s.index)
            if channels and channels != len(index):
                if channels % len(index):
                    continue
                index = index.repeat(channels // len(index), 1)  # the same places in every block
            yield Site(layer, index, Weights(s.key, s.dim, s.role, _tensor(s.index), weight) if consumes else None)

    def _channels(self, layer: Layer) -> int:
        shape = layer.entering.meta["val"].shape
        return int(shape[-1 if layer.op == "linear" else 1])

    def expected(self, group: Group) -> tuple[Activation, ...]:
        """The consumers with what BatchNorms tell of what enters them, None where they don't."""
        found = []
        for site in self.consumers(group):
            told = self.working.expectations.of(site.layer.entering)
            mean, variance = (None, None) if told is None else (told.mean, told.variance)
            found.append(Activation(site.layer.module, site.index, site.weight, mean=mean, variance=variance))
        return tuple(found)

    # --- one batch ----------------------------------------------------------------------------------------

    def run(self, batch: Batch, sites: Sequence[Site], gradients: bool) -> Seen:
        """One forward pass, and with `gradients` a backward pass of the loss."""
        seen, module = Seen(), self.working.module

        def see(site: Site) -> Callable[[Any, Any], None]:
            def keep(args: Any, result: Any) -> None:
                value = site.seen(args, result)
                if gradients and value.requires_grad:
                    value.retain_grad()
                seen.values[(*site.layer.site, site.weight is None)] = value  # type: ignore[index]

            return keep

        watch = {site.layer.site: see(site) for site in sites}
        if not gradients:
            with evaluating(module), Observer(watch):
                batch.inputs.call(module)
            return seen
        with _with_gradients(self.working), plain_transformers():
            with Observer(watch):
                made = batch.inputs.call(module)
            loss(made, batch.labels).backward()
            for key, tensor in self.working.state.items():
                if tensor.grad is not None:
                    seen.gradients[key] = tensor.grad
                    tensor.grad = None
        return seen

    def activations(self, sites: Sequence[Site], seen: Seen, gradients: bool) -> tuple[Activation, ...]:
        found = []
        for site in sites:
            value = seen.values[(*site.layer.site, site.weight is None)]  # type: ignore[index]
            gradient = value.grad if gradients and value.grad is not None else None
            if gradients and gradient is None:
                gradient = torch.zeros_like(value)
            found.append(
                Activation(
                    site.layer.module,
                    site.index,
                    site.weight,
                    flat(value.detach(), site.axis),
                    None if gradient is None else flat(gradient, site.axis),
                )
            )
        return tuple(found)

    # --- samples ------------------------------------------------------------------------------------------

    def places(self, site: Site, images: int) -> int:
        """How many output places are sampled of each image."""
        channels = len(site.index)
        inputs = channels * math.prod(self.working.state[site.layer.weight].shape[2:])
        return max(PLACES_PER_IMAGE, -(-max(ROWS_PER_CHANNEL * channels, ROWS_PER_INPUT * inputs) // images))

    def sampled(self, group: Group) -> list[Site]:
        """The consumers whose input windows can be taken, in the order of the network."""
        return sorted((s for s in self.consumers(group) if not s.layer.transposed), key=lambda s: s.layer.place)

    def samples(self, sweep: Sweep, sites: list[Site], images: int) -> list[tuple[Site, list[Tensor]]]:
        """The windows of each consumer for each batch, the first at the sweep's next stop, the others further on."""
        windows: dict[int, list[Tensor]] = {site.layer.place: [] for site in sites}
        of_place = {site.layer.place: site for site in sites}

        def see(place: int) -> Callable[[int, tuple[Any, ...]], None]:
            site = of_place[place]
            each = self.places(site, images)
            return lambda batch, args: windows[place].append(self.windows(site, batch, args, each))

        first, *others = sorted(of_place)
        for batch, args in enumerate(sweep.until(first)):
            see(first)(batch, args)
        if others:
            sweep.look({place: see(place) for place in others})
        return [(of_place[place], parts) for place, parts in windows.items()]

    def windows(self, site: Site, batch: int, args: Sequence[Any], each: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 7919 * site.layer.place + 104729 * batch)
        return sample(site.layer.op, args, each, generator).windows

    def consumer(self, site: Site, windows: Tensor) -> Consumer:
        return Consumer(
            site.layer.module,
            site.index,
            windows,
            unfold(self.working.state[site.layer.weight].detach(), windows.shape[1]),
        )


def unfold(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight (outputs, channels of a block, ...) over all channels, zero outside each output's block:
    (outputs, channels, places of the kernel)."""
    flat_weight = weight.reshape(*weight.shape[:2], -1)
    blocks = channels // weight.shape[1]
    if blocks == 1:
        return flat_weight
    made = weight.new_zeros(len(weight), channels, flat_weight.shape[2])
    each = len(weight) // blocks
    for block in range(blocks):
        rows = slice(block * each, (block + 1) * each)
        made[rows, block * weight.shape[1] : (block + 1) * weight.shape[1]] = flat_weight[rows]
    return made


def fold(full: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `unfold`: a weight of the shape of `weight`."""
    blocks = full.shape[1] // weight.shape[1]
    each = len(weight) // blocks
    parts = [full[b * each : (b + 1) * each, b * weight.shape[1] : (b + 1) * weight.shape[1]] for b in range(blocks)]
    return torch.cat(parts).reshape(weight.shape)


def flat(value: Tensor, axis: int) -> Tensor:
    """(images, channels, places) of a layer's input or result."""
    moved = value.movedim(axis, 1) if value.dim() > 1 else value[None]
    return moved.flatten(2) if moved.dim() > 2 else moved.unsqueeze(2)


def loss(made: Any, labels: Tensor | None) -> Tensor:
    """Cross-entropy, summed over the batch, on labels or else on the classes that the network itself finds most likely.

    Raises RecipeError where the network does not return one tensor (images, classes)."""
    found = outputs(made)
    if len(found) != 1 or found[0].dim() != 2:
        shapes = ", ".join(str(tuple(x.shape)) for x in found)
        raise RecipeError(
            f"gradients need class scores of shape (images, classes), and this network returns {shapes}: choose a "
            "criterion without gradients (see `structprune criteria`)"
        )
    return F.cross_entropy(found[0], found[0].argmax(1) if labels is None else labels, reduction="sum")


@contextmanager
def _with_gradients(working: Working) -> Iterator[None]:
    """Evaluation mode, gradients for every floating-point parameter."""
    module = working.module
    modes = [(m, m.training) for m in module.modules()]
    parameters = [(p, p.requires_grad) for p in module.parameters()]
    module.eval()
    try:
        for parameter, _ in parameters:
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.enable_grad():
            yield
    finally:
        for m, mode in modes:
            m.training = mode
        for parameter, wanted in parameters:
            parameter.requires_grad_(wanted)
            parameter.grad = None


def activation_after(node: fx.Node) -> Callable[[Tensor], Tensor]:
    """What the network does, element by element, to the result of `node`, as long as nothing else reads it."""
    steps: list[Callable[[Tensor], Tensor]] = []
    while len(node.users) == 1:
        user = next(iter(node.users))
        name = op_name(user.target) if user.op == "call_function" else ""
        others = [x for x in leaves_of((user.args[1:], user.kwargs)) if isinstance(x, fx.Node)]
        if name in POINTWISE and user.args[0] is node and not others:
            steps.append(step(user))
        elif name not in TRANSPARENT:
            break
        node = user

    def activate(values: Tensor) -> Tensor:
        for function in steps:
            values = function(values)
        return values

    return activate


def _tensor(index: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(index))
