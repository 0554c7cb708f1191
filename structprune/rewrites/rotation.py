"""Turns linear streams, so that what is cut of them is what the layers behind them miss least.

After SliceGPT (Ashkboos et al., ICLR 2024, section 3.2), which turns the residual stream of transformers to its
principal axes; here it is that of networks whose blocks hand on sums of convolutions with no activation on them. The
network computes what it did before: the change is written into the layers that make the channels, and undone by those
that read them. Usual errors are to turn behind an activation or another op that treats each channel by itself (such
channels are no stream, see `graph.streams`; the BatchNorm of a layer that makes them goes into the layer), and to count
variance that nothing reads: axes are those of C after M^(1/2), where C is the covariance of the channels and M what the
readers' weights make of each direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..calibration import Batch, WritableNetwork, batches_for
from ..graph import DependencyGraph
from ..graph.layers import Layer
from ..graph.streams import Stream, find_streams
from ..memory_limits import LIMIT
from ..modules import own_copy, tensors
from ..ops.inputs import outputs
from ..records import Scores

if TYPE_CHECKING:
    from ..tasks import Task


_OF_A_PLAN = (
    "the plan is for the network whose linear streams are turned (prune.rotate), not for its weights as they came"
)
_TINY = 1e-30
DAMPING = 1e-2  # of the mean use of a direction: what readers hardly look at is still told apart
LARGEST_DIFFERENCE = 1e-4  # of the outputs, as a share of the largest: more is not rounding


@dataclass(frozen=True)
class Rotation:
    """What was turned.

    Attributes:
        streams: The names of the groups; none where the network stays as it was.
        difference: The largest difference of the outputs on the first images, as a share of the largest output.
        notes: What a user should know.
    """

    streams: tuple[str, ...]
    difference: float = 0.0
    notes: tuple[str, ...] = ()

    def ranked(self, scores: Scores) -> Scores:
        """Ranks the units of streams in the order of their axes, whatever the criterion says of each.

        Args:
            scores: Those of a criterion, whose size of a group still counts beside other groups'.

        Returns:
            The scores, those of each stream from the largest to the smallest, as its axes are ordered.
        """
        values = dict(scores.values)
        for name in set(self.streams) & values.keys():
            values[name] = np.sort(values[name])[::-1].copy()
        return replace(scores, values=values, notes=[*scores.notes, _OF_A_PLAN] if self.streams else scores.notes)


class _Covariance:
    """The covariance of channels over all other axes, about a point near their mean."""

    def __init__(self) -> None:
        self.count = 0
        self.origin: Tensor | None = None
        self.first: Tensor | float = 0.0
        self.second: Tensor | float = 0.0

    def add(self, values: Tensor, axis: int) -> None:
        for sample in values.split(4):
            rows = sample.movedim(axis, 0).flatten(1).double()
            if self.origin is None:
                self.origin = rows.mean(1, keepdim=True)
            rows = rows - self.origin
            self.count += rows.shape[1]
            self.first = self.first + rows.sum(1)
            self.second = self.second + rows @ rows.T

    def value(self) -> Tensor:
        mean = torch.as_tensor(self.first) / self.count
        return self.second / self.count - torch.outer(mean, mean)


@torch.no_grad()
def rotate(
    graph: DependencyGraph,
    data: Any,
    *,
    task: Task | None = None,
    memory: float = LIMIT,
    progress: Callable[[float], None] = lambda share: None,
) -> Rotation:
    """Turns the linear streams of a network to the axes that matter to the layers that read them, in place.

    Covariance and use are added up over the reading layers, each of which weighs the same. A BatchNorm of a layer that
    makes the channels gets the mean and the variance that its inputs now have, so that training goes on from there.

    Args:
        graph: What `trace` gives; the weights of its model are changed.
        data: Images as `recover` takes them. Their labels are not looked at.
        task: How items become inputs; by default classification.
        memory: Bytes that what is kept between calls may take.
        progress: Called with the share that is done.

    Returns:
        What was turned: nothing where no group is a linear stream, or where the outputs would no longer be the same.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
        >>> rotate(sp.trace(net, images), images).streams
        ('0',)
    """
    batches = batches_for(graph.model, data, task=task)
    streams = find_streams(graph)
    if not streams:
        return Rotation((), notes=("no group is a linear stream, so that none is turned (prune.rotate)",))
    network = WritableNetwork.of(graph.model, batches[0].inputs)
    moments = _moments(network, streams, batches, memory, progress)
    before = _outputs(graph.model, batches[0])
    state = tensors(graph.model)
    changed = {key for stream in streams for key in _keys(stream)}
    old = {key: state[key].detach().clone() for key in changed}
    turns = [_axes(stream, moments, state) for stream in streams]
    for stream, (turn, back) in zip(streams, turns, strict=True):
        for layer in stream.makers:
            _turn_maker(layer, turn, moments, state)
        for layer in stream.readers:
            weight = state[layer.weight]
            weight.copy_(torch.einsum("oi...,ik->ok...", weight.double(), back))
    difference = _difference(before, _outputs(graph.model, batches[0]))
    if difference > LARGEST_DIFFERENCE:  # by more than rounding, unless float64 says that it is no more
        difference = min(difference, _difference_in_float64(graph.model, batches[0], old))
    if difference <= LARGEST_DIFFERENCE:
        line = f"{len(streams)} linear streams are turned: outputs differ by {difference:.0e}"
        return Rotation(tuple(stream.name for stream in streams), difference, (line,))
    for key, tensor in old.items():
        state[key].copy_(tensor)
    return Rotation((), notes=(f"no stream is turned: outputs would differ by {difference:.0e} of the largest",))


def _keys(stream: Stream) -> Iterator[str]:
    for layer in (*stream.makers, *stream.readers):
        norm = layer.norm
        held = () if norm is None else (norm.weight, norm.bias, norm.mean, norm.variance)
        yield from (key for key in (layer.weight, layer.bias, *held) if key)


def _outputs(model: nn.Module, batch: Batch) -> list[Tensor]:
    return [x.double() for x in outputs(batch.inputs.call(model))]


def _difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """The largest difference of outputs, as a share of the largest."""
    largest = max(float(x.abs().max()) for x in before) or 1.0
    return max(float((x - y).abs().max()) for x, y in zip(before, after, strict=True)) / largest


def _difference_in_float64(model: nn.Module, batch: Batch, old: Mapping[str, Tensor]) -> float:
    """How far the outputs of a network are from those that it made with `old` tensors, without rounding on the way;
    infinite where it does not run in float64."""
    double = Batch(batch.inputs.map(lambda x: x.double() if x.is_floating_point() else x))
    networks = (own_copy(model).double(), own_copy(model).double())
    for key, tensor in old.items():
        tensors(networks[0])[key].copy_(tensor)
    try:
        return _difference(*(_outputs(network, double) for network in networks))
    except RuntimeError:  # of numbers that its code keeps in float32
        return math.inf


def _moments(
    network: WritableNetwork,
    streams: Sequence[Stream],
    batches: Sequence[Batch],
    memory: float,
    progress: Callable[[float], None],
) -> dict[str, _Covariance]:
    """The covariance of what enters each layer that reads a stream, by the key of its weight, and of what enters each
    BatchNorm in one, by that of its mean."""
    moments: dict[str, _Covariance] = {}
    watch: dict[int, Any] = {}
    layers = {layer.weight: layer for layer in network.layers}  # with their places in a pass on these images

    def look(key: str, place: int, axis: int, values: Callable[[tuple[Any, ...]], Tensor]) -> None:
        covariance = moments[key] = _Covariance()

        def see(batch: int, args: tuple[Any, ...]) -> None:
            covariance.add(values(args), axis)
            if place == max(watch):
                progress((batch + 1) / len(batches))

        watch[place] = see

    for stream in streams:
        for layer in (layers[reader.weight] for reader in stream.readers):
            look(layer.weight, layer.place, layer.axis, layer.input_of)
        for layer in (layers[maker.weight] for maker in stream.makers):
            if layer.norm is not None:
                look(layer.norm.mean, layer.norm.place, layer.axis, lambda args: args[0])
    network.sweep(batches, memory).look(watch)
    return moments


def _axes(stream: Stream, moments: Mapping[str, _Covariance], state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The matrix that the channels are multiplied by, rows from the axis that is missed most; and its inverse."""
    shares = [moments[layer.weight].value() for layer in stream.readers]
    covariance = torch.as_tensor(sum(share / share.trace().clamp_min(_TINY) for share in shares))
    use = torch.zeros_like(covariance)
    for layer, share in zip(stream.readers, shares, strict=True):
        rows = state[layer.weight].double().movedim(1, -1).flatten(0, -2)
        gram = rows.T @ rows
        use += gram / (gram * share).sum().clamp_min(_TINY)
    values, vectors = torch.linalg.eigh(use)
    values = values.clamp_min(0) + DAMPING * values.mean().clamp_min(_TINY)
    root, inverse_root = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    axes = torch.linalg.eigh(root @ covariance @ root).eigenvectors.flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return axes.T @ root, inverse_root @ axes


def _turn_maker(layer: Layer, turn: Tensor, moments: Mapping[str, _Covariance], state: Mapping[str, Tensor]) -> None:
    weight, bias = state[layer.weight], state[layer.bias] if layer.bias else None
    norm = layer.norm
    if norm is None:
        weight.copy_(torch.einsum("ko,o...->k...", turn, weight.double()))
        if bias is not None:
            bias.copy_(turn @ bias.double())
        return
    assert norm.weight is not None
    assert norm.bias is not None
    gain = state[norm.weight].double() / (state[norm.variance].double() + norm.eps).sqrt()
    scaled = turn * gain  # of what the layer makes, without its bias
    weight.copy_(torch.einsum("ko,o...->k...", scaled, weight.double()))
    mean = state[norm.mean].double()
    if bias is not None:
        mean = mean - bias.double()
        bias.zero_()
    covariance = moments[norm.mean].value()
    variance = ((scaled @ covariance) * scaled).sum(1).clamp_min(0)
    state[norm.bias].copy_(turn @ state[norm.bias].double())
    state[norm.mean].copy_(scaled @ mean)
    state[norm.variance].copy_(variance)
    state[norm.weight].copy_((variance + norm.eps).sqrt())
