"""Gathers what criteria need: builds the views of groups, from weights and from what is seen on calibration images."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..calibration import Batch, Observer, Sweep, WritableNetwork, sample
from ..calibration.windows import places_of
from ..graph import DependencyGraph, Group
from ..graph.layers import Layer, find_layers
from ..graph.layers import Norm as NormCall
from ..graph.recorded_calls import RecordedCalls
from ..memory_limits import LIMIT
from ..modules import evaluating, plain_transformers, tensors
from ..tasks.classification import Classification
from ..tasks.task import Task
from .gradients import with_gradients
from .memory_bounds import SHOWN, SQUARES, in_parts, joined
from .observation_sites import Seen, Site, by_unit, flat
from .registry import Mend
from .views import Activation, Consumer, GroupView, Norm, Weights

ROWS_PER_CHANNEL, ROWS_PER_INPUT = 10, 2  # how many rows are sampled at least for a consumer
PLACES_PER_IMAGE = 10  # as in Luo et al. 2017


class Collector:
    """Knows the layers of a traced model and makes views of its groups.

    What only some criteria need is made when it is first asked for. `working` holds weights that may change; until
    there is one, views show the model's own.
    """

    def __init__(self, graph: DependencyGraph, seed: int, memory: float = LIMIT, task: Task | None = None) -> None:
        self.graph, self.seed, self.memory = graph, seed, memory
        self.task = task or Classification()
        self.notes: dict[str, str] = {}  # what was done to keep to the memory, by the module that it was done for
        self._own = tensors(graph.model)

    @cached_property
    def working(self) -> WritableNetwork:
        return WritableNetwork.of(self.graph.model, self.graph.inputs, self.graph.recording)

    def copy(self) -> None:
        """Makes the working copy now, so that views show it."""
        _ = self.working

    @property
    def state(self) -> dict[str, Tensor]:
        return self.working.state if "working" in vars(self) else self._own

    @cached_property
    def _layers_and_norms(self) -> tuple[list[Layer], list[NormCall]]:
        return find_layers(self.graph.recording)

    @cached_property
    def by_weight(self) -> dict[str, list[Layer]]:
        layers: dict[str, list[Layer]] = {}
        for layer in self._layers_and_norms[0]:
            layers.setdefault(layer.weight, []).append(layer)
        return layers

    @cached_property
    def _norms(self) -> dict[str, NormCall]:
        return {norm.weight: norm for norm in self._layers_and_norms[1] if norm.weight}

    @cached_property
    def _calls(self) -> RecordedCalls:
        return RecordedCalls(self.graph.recording)

    # --- views --------------------------------------------------------------------------------------------

    def view(self, group: Group, number: int, **parts: Any) -> GroupView:
        gradients = parts.pop("gradients", {})
        weights = tuple(
            Weights(s.key, s.dim, s.role, _tensor(s.index), self.state[s.key].detach(), gradients.get(s.key))
            for s in group.slices
        )
        generator = torch.Generator().manual_seed(self.seed * 100003 + number)
        strata, rates = _tensor(group.strata), group.rates
        return GroupView(
            group.name,
            group.units,
            weights,
            strata=strata,
            rates=rates,
            generator=generator,
            memory=self.memory,
            **parts,
        )

    def norms(self, group: Group) -> tuple[Norm, ...]:
        """The BatchNorms that scale a group's channels, in the order of the network."""
        norms = []
        for s in group.slices:
            norm = self._norms.get(s.key)
            if norm is not None:
                state = self.state
                scale = state[s.key].detach()
                shift = state[norm.bias].detach() if norm.bias else torch.zeros_like(scale)
                after = self._calls.activation_after(norm.site)
                norms.append(
                    (
                        norm.place,
                        Norm(
                            norm.module, _tensor(s.index), scale, shift, state[norm.mean], state[norm.variance], after
                        ),
                    )
                )
        return tuple(norm for _, norm in sorted(norms, key=lambda pair: pair[0]))

    def consumers(self, group: Group) -> list[Site]:
        return [site for s in group.slices if s.role == "consumer" for site in self._sites(group, s, True)]

    def sites(self, group: Group) -> list[Site]:
        """The consumers of a group's channels; if no layer consumes them, the layers that make them."""
        makers = [site for s in group.slices if s.role == "filter" for site in self._sites(group, s, False)]
        return self.consumers(group) or makers

    def maps(self, group: Group) -> list[Site]:
        """The same, but before an average over places: what goes into it, as criteria on feature maps mean it."""
        sites = []
        for site in self.sites(group):
            maps = self._calls.before_average(site.layer.input, len(site.index)) if site.weight is not None else None
            sites.append(site if maps is None else replace(site, call=maps))
        return sites

    def _sites(self, group: Group, s: Any, consumes: bool) -> Iterator[Site]:
        weight = self.state[s.key]
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
        return int(layer.recorded_call.x.shape[layer.axis])

    def expected(self, group: Group) -> tuple[Activation, ...]:
        """The consumers with what BatchNorms tell of what enters them, None where they don't."""
        activations = []
        for site in self.consumers(group):
            expectation = self.working.expected(site.layer)
            mean, variance = (None, None) if expectation is None else (expectation.mean, expectation.variance)
            activations.append(Activation(site.layer.module, site.index, site.weight, mean=mean, variance=variance))
        return tuple(activations)

    # --- one batch ----------------------------------------------------------------------------------------

    def watch(self, batch: Batch, sites: Sequence[Site], look: Callable[[Site, Tensor], None]) -> None:
        """One forward pass; `look(site, value)` gets what is at each site, before later calls write to it."""
        at: dict[tuple[str, int], list[Site]] = {}
        for site in {site.key: site for site in sites}.values():
            at.setdefault(site.at, []).append(site)

        def see(sites: list[Site]) -> Callable[[Any, Any], None]:
            def show(args: Any, result: Any) -> None:
                for site in sites:
                    look(site, site.seen(args, result))

            return show

        with evaluating(self.working.module), Observer({place: see(own) for place, own in at.items()}):
            batch.inputs.call(self.working.module)

    def at_once(self, sites: Sequence[Site], gradients: bool) -> int:
        """How many images may be shown at a time."""
        each = 0.0
        for site in {site.key: site for site in sites}.values():
            value = site.layer.recorded_call.x if site.key[2] else self._calls.result(site.at)
            each += value.numel() * value.element_size() / max(1, value.shape[0]) * (4 if gradients else 2)
        return max(1, int(self.memory * SHOWN / max(each, 1e-9)))

    def run(self, batch: Batch, sites: Sequence[Site], gradients: bool) -> Seen:
        """One forward pass, and with `gradients` a backward pass of the loss."""
        recording, module = Seen(), self.working.module

        def see(site: Site) -> Callable[[Any, Any], None]:
            def keep(args: Any, result: Any) -> None:
                value = site.seen(args, result)
                if gradients and value.requires_grad:
                    value.retain_grad()
                    recording.live[site.key] = value
                recording.values[site.key] = value.detach().clone()  # later calls may write to it

            return keep

        looks: dict[tuple[str, int], dict[bool, Site]] = {}
        for site in sites:
            looks.setdefault(site.at, {})[site.key[2]] = site

        def see_all(at: tuple[str, int]) -> Callable[[Any, Any], None]:
            each = [see(site) for site in looks[at].values()]

            def keep_all(args: Any, result: Any) -> None:
                for keep in each:
                    keep(args, result)

            return keep_all

        watch = {at: see_all(at) for at in looks}
        if not gradients:
            with evaluating(module), Observer(watch):
                batch.inputs.call(module)
            return recording
        with with_gradients(self.working), plain_transformers():
            with Observer(watch):
                results = batch.inputs.call(module)
            self.task.importance_loss(results, batch.labels).backward()
            for key, tensor in self.working.state.items():
                if tensor.grad is not None:
                    recording.gradients[key] = tensor.grad / batch.images  # of the mean loss
                    tensor.grad = None
        return recording

    def activations(self, sites: Sequence[Site], recording: Seen, gradients: bool) -> tuple[Activation, ...]:
        activations = []
        for site in sites:
            value, gradient = flat(recording.values[site.key], site.axis), None
            if gradients:
                live = recording.live.get(site.key)
                known = None if live is None else live.grad
                gradient = torch.zeros_like(value) if known is None else flat(known, site.axis)
            index = site.index
            order = by_unit(index)
            if order is not None:  # several positions of one unit are places of one map
                index, value = torch.arange(len(order))[:, None], value[:, order].flatten(2)
                gradient = None if gradient is None else gradient[:, order].flatten(2)
            activations.append(Activation(site.layer.module, index, site.weight, value, gradient))
        return tuple(activations)

    # --- samples ------------------------------------------------------------------------------------------

    def places(self, site: Site, images: int) -> int:
        """How many output places are sampled of each image."""
        channels = len(site.index)
        inputs = channels * math.prod(self.working.state[site.layer.weight].shape[2:])
        return max(PLACES_PER_IMAGE, -(-max(ROWS_PER_CHANNEL * channels, ROWS_PER_INPUT * inputs) // images))

    def first(self, group: Group) -> int:
        """The place of the first call that consumes a group's channels."""
        return min(site.layer.place for site in self.consumers(group))

    def sampled(self, group: Group) -> list[Site]:
        """The consumers whose input windows can be taken, in the order of the network."""
        return sorted((s for s in self.consumers(group) if not s.layer.transposed), key=lambda s: s.layer.place)

    def samples(self, sweep: Sweep, sites: list[Site], images: int) -> list[tuple[Site, list[Tensor]]]:
        """The windows of each consumer for each batch, from where the sweep stands on; of fewer places where all would
        take more than the memory allows."""
        windows: dict[int, list[Tensor]] = {site.layer.place: [] for site in sites}
        of_place = {site.layer.place: site for site in sites}

        def see(place: int) -> Callable[[int, tuple[Any, ...]], None]:
            site = of_place[place]
            inputs = len(site.index) * math.prod(self.working.state[site.layer.weight].shape[2:])
            most = max(1, int(self.memory * SHOWN / (4.0 * inputs * images * len(sites))))
            each = self.places(site, images)

            def take(batch: int, args: tuple[Any, ...]) -> None:
                if most < min(each, places_of(site.layer.read(args))):
                    self.notes[site.layer.module] = f"was shown by {most} of its places an image"
                windows[place].append(self.windows(site, batch, args, min(each, most)))

            return take

        if of_place:
            sweep.look({place: see(place) for place in of_place})
        return [(of_place[place], parts) for place, parts in windows.items()]

    def windows(self, site: Site, batch: int, args: Sequence[Any], each: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 7919 * site.layer.place + 104729 * batch)
        return sample(site.layer.read(args), each, generator).windows

    def blocks(self, site: Site, windows: Tensor, squares: float = 0.0, together: bool = True) -> list[Consumer]:
        """A consumer with its windows; a grouped convolution's blocks apart, as each has outputs of its own.

        With `squares`, the share of the memory for square matrices that is the consumer's, in as many parts as these
        ask for, all held `together` or one at a time.
        """
        weight = self.working.state[site.layer.weight].detach()
        kernels = weight.reshape(*weight.shape[:2], -1)
        count = windows.shape[1] // weight.shape[1]
        parts = zip(kernels.chunk(count), windows.chunk(count, dim=1), site.index.chunk(count), strict=True)
        whole = [Consumer(site.layer.module, index, rows, kernel.clone()) for kernel, rows, index in parts]
        if not squares:
            return whole
        limit = self.memory * SQUARES * squares / (count if together else 1)
        split = [part for consumer in whole for part in in_parts(consumer, limit, together)]
        if len(split) > len(whole):
            self.notes[site.layer.module] = f"was taken in {len(split)} parts, each for itself"
        return split

    def mended(self, view: GroupView, consumers: Sequence[Consumer], kept: Tensor, mend: Mend, layer: Layer) -> None:
        """Writes the weight of a layer, block by block, as `mend` finds it, and shifts its outputs."""
        blocks = [mend(view, consumer, kept) for consumer in consumers]
        weight, offset = joined(blocks, self.working.state[layer.weight].shape[1])
        self.working.write(layer.weight, weight)
        if self.working.can_shift(layer):
            self.working.shift(layer, offset)

    def touched(self, view: GroupView) -> set[str]:
        """The keys that `mended` and `silence` may write to."""
        keys = {weights.key for weights in view.weights if weights.role == "consumer"}
        for layer in [layer for key in keys for layer in self.by_weight.get(key, ())]:
            keys |= {key for key in (layer.bias, layer.norm.mean if layer.norm else None) if key}
        return keys

    def silence(self, view: GroupView, kept: Tensor, mended: Collection[str] = ()) -> None:
        """Sets to zero what reads the units that go, but for the weights named in `mended`."""
        for weights in view.weights:
            if weights.role != "consumer" or weights.key in mended:
                continue
            tensor = self.working.state[weights.key]
            gone = ~torch.cat([kept, kept.new_ones(1)])[weights.index].all(1)
            blocks = len(gone) // tensor.shape[weights.dim]
            lines = gone.reshape(blocks, -1).repeat_interleave(tensor.shape[0] // blocks if blocks > 1 else 1, 0)
            shape = [1] * tensor.dim()
            shape[0], shape[weights.dim] = lines.shape[0] if blocks > 1 else shape[0], tensor.shape[weights.dim]
            with torch.no_grad():
                tensor.masked_fill_(lines.reshape(shape).to(tensor.device), 0)


def _tensor(index: np.ndarray) -> Tensor:
    return torch.tensor(index)  # a copy: arrays of the graph are read-only
