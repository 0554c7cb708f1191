"""What a criterion sees: a group's weights, its BatchNorms, what flows through it, and who consumes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..memory_limits import LIMIT


@dataclass(frozen=True)
class Weights:
    """One parameter of a group and the axis that the group controls.

    `index` has shape (positions, k) and gives the group's units on each position of axis `dim` of `tensor`,
    -1 for none. `role` is filter, passed, consumer, norm, bias or other (see `graph.flow.Flow`). `gradient` is that of
    the loss on the present batch, of the tensor's shape, for criteria that need gradients.
    """

    key: str
    dim: int
    role: str
    index: Tensor
    tensor: Tensor
    gradient: Tensor | None = None

    def sums(self, values: Tensor) -> Tensor:
        """Sums of `values`, of the tensor's own shape, over all but axis `dim`: shape (positions,)."""
        return self.positions(values).sum(1)

    def positions(self, values: Tensor | None = None) -> Tensor:
        """The tensor (or `values`, of its shape) with axis `dim` first and the rest flattened: (positions, rest).

        Where blocks of axis 0 keep positions of their own (grouped convolutions), those of all blocks in turn.
        """
        tensor = self.tensor if values is None else values
        if len(self.index) != tensor.shape[self.dim]:
            blocks = len(self.index) // tensor.shape[self.dim]
            apart = tensor.reshape(blocks, -1, *tensor.shape[1:])
            return apart.movedim(self.dim + 1, 1).flatten(0, 1).flatten(1)
        return tensor.movedim(self.dim, 0).flatten(1) if tensor.dim() > 1 else tensor[:, None]


@dataclass(frozen=True)
class Norm:
    """A BatchNorm on a group's channels: `index` as of `Weights`; `scale`, `shift`, `mean` and `variance` (positions,).

    `activate` is what the network does to the result, element by element, up to the next layer (the identity if that
    is no function of one element).
    """

    module: str
    index: Tensor
    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor
    activate: Callable[[Tensor], Tensor] = field(repr=False)


@dataclass(frozen=True)
class Activation:
    """A group's channels where a layer takes them in, or where a layer makes them if none takes them in.

    `weight` is the consuming layer's, if there is one. For criteria that need activations, `values` has shape (images,
    positions, places): the present batch; with gradients, `gradient` of the same shape is that of the loss summed over
    the batch. For those that need moments, `mean` and `variance` (positions,) are over all images and places.
    """

    module: str
    index: Tensor
    weight: Weights | None = None
    values: Tensor | None = None
    gradient: Tensor | None = None
    mean: Tensor | None = None
    variance: Tensor | None = None


@dataclass(frozen=True)
class Consumer:
    """Pairs of (input window, output) of a layer that takes in a group's channels, on the already pruned network.

    `windows` has shape (rows, positions, places of the kernel); `weight` (outputs, positions, places of the kernel)
    maps a row to the layer's outputs less its bias. Each block of a grouped convolution is a consumer of its own.
    """

    module: str
    index: Tensor
    windows: Tensor
    weight: Tensor


@dataclass(frozen=True)
class GroupView:
    """What a criterion sees of a group: its name, its number of units, its weights, leading layer first.

    `norms`, `activations` and `consumers` are there for criteria that need them. `kept` is the number of units that
    will stay, for criteria that need widths. `strata` numbers the stratum of each unit (None: there is one), and
    `rates` says how many units of each go at a time. `generator` makes random numbers that depend on the seed and the
    group. `memory` is how many bytes scoring may take on top of what is shown here.
    """

    name: str
    units: int
    weights: tuple[Weights, ...]
    norms: tuple[Norm, ...] = ()
    activations: tuple[Activation, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    kept: int | None = None
    strata: Tensor | None = None
    rates: tuple[int, ...] = (1,)
    generator: torch.Generator = field(default_factory=torch.Generator, repr=False)
    memory: float = LIMIT

    def per_unit(self, on: Weights | Norm | Activation | Consumer, values: Tensor) -> Tensor:
        """Sums values of positions for each unit.

        Args:
            on: the tensor of the group that the values are of
            values: shape (positions,)

        Returns:
            Shape (units,), float64.
        """
        total = torch.zeros(self.units, dtype=torch.float64)
        for column in on.index.T:
            total.index_add_(0, column[column >= 0], values[column >= 0].double().cpu())
        return total

    def member(self, on: Weights | Norm | Activation | Consumer, values: Tensor) -> Tensor:
        """Sums values of positions for each unit, for one of several coupled layers.

        Args:
            on: the tensor of the group that the values are of
            values: shape (positions,)

        Returns:
            Shape (units,), float64; NaN for units that are on none of the positions.
        """
        return torch.where(self.holds(on), self.per_unit(on, values), torch.nan)

    def holds(self, on: Weights | Norm | Activation | Consumer) -> Tensor:
        """Tells which units are on any position of a tensor.

        Args:
            on: a tensor of the group

        Returns:
            Shape (units,), bool.
        """
        held = torch.zeros(self.units, dtype=torch.bool)
        held[on.index[on.index >= 0]] = True
        return held

    def filters(self) -> list[Weights]:
        """Picks the weights of the layers that make the channels.

        Returns:
            Those with the role `filter`, the leading layer's first.
        """
        return [weights for weights in self.weights if weights.role == "filter"]


Members = Sequence[Tensor]  # scores by each of several coupled layers, NaN where one does not hold a unit


def _leading(members: Tensor) -> Tensor:
    first = members[0]
    for other in members[1:]:
        first = torch.where(first.isnan(), other, first)
    return first


def _normalised(members: Tensor) -> Tensor:
    means = members.nanmean(1, keepdim=True)
    return (members / torch.where(means == 0, 1.0, means)).nanmean(0)


COMBINE: dict[str, Callable[[Tensor], Tensor]] = {
    "leading": _leading,
    "sum": lambda members: members.nansum(0),
    "mean": lambda members: members.nanmean(0),
    "max": lambda members: members.nan_to_num(nan=-torch.inf).amax(0),
    "normalised": _normalised,
}


def combine(members: Members, how: str) -> Tensor:
    """One score a unit from those by each coupled layer: by the first that has the unit (`leading`), their `sum`,
    `mean` or `max`, or the mean after division of each layer's by its own mean (`normalised`). A unit that no layer
    scores gets NaN."""
    stacked = torch.stack([member.double().cpu() for member in members])
    return torch.where(stacked.isnan().all(0), torch.nan, COMBINE[how](stacked))


def broken_weights(view: GroupView) -> list[str]:
    """The weights of a group that hold NaN or infinite values."""
    return [w.key for w in view.weights if not torch.isfinite(w.tensor).all()]


def why_not_finite(name: str, view: GroupView) -> str:
    """Why the scores of the criterion `name` are not finite for a group, in a line."""
    bad = broken_weights(view)
    if bad:
        return f"{bad[0]} holds NaN or infinite values, so its filters cannot be ranked: load sound weights"
    return f"criterion {name!r} gave scores that are not finite for group {view.name}"
