"""Gates on coupled units: numbers that a channel is multiplied by wherever a layer takes it in.

A gate stands on the kernels of the layers that consume a channel. A gate of zero is then the removal of its unit,
whatever normalises the channel on its way, and folding a gate into the weights changes nothing. A gate on the filters
would be undone by the BatchNorm behind them.

The network's own forward pass runs with weights that hold the gates; the weights without gates are kept aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..graph import DependencyGraph
from .coupled import CoupledUnits, Part, coupled_units

Gates = Mapping[str, Tensor]  # of each group, by its name: (units,)


class GatedUnits:
    """The groups of a network whose units can have gates: exact ones, each unit of which enters weights of a layer."""

    def __init__(self, model: nn.Module, graph: DependencyGraph, names: Sequence[str]) -> None:
        """`names` are the groups that may have gates."""
        exact = {group.name for group in graph.groups if group.exact} & {*names}
        self.groups = [group for group in coupled_units(model, graph) if group.name in exact and _is_consumed(group)]
        parts = [part for group in self.groups for part in group.parts if part.role in ("consumer", "filter")]
        self.parameters = list({id(part.parameter): part.parameter for part in parts}.values())
        self.own: list[Tensor] = []  # the weights without gates, while gates are in
        self._products: list[tuple[nn.Parameter, Tensor, Tensor]] = []

    def put_in(self, gates: Gates) -> None:
        """Multiplies what takes the channels in by their gates, for passes whose gradients `backward` brings home."""
        self.own = [parameter.detach().clone() for parameter in self.parameters]
        weights = {id(parameter): own for parameter, own in zip(self.parameters, self.own, strict=True)}
        self._products = []
        for parameter, factor in self.factors(gates, "consumer"):
            product = weights[id(parameter)] * factor
            self._products.append((parameter, factor.detach(), product))
            with torch.no_grad():
                parameter.copy_(product)

    def backward(self) -> None:
        """Turns gradients of weights with gates into those of weights without, which stand in the parameters after
        it, and adds those of the gates to whatever leaves these were made of."""
        trained = [
            (parameter, factor, product) for parameter, factor, product in self._products if _has_grad(parameter)
        ]
        self._products = []
        if trained:
            gradients = [parameter.grad for parameter, _, _ in trained]
            torch.autograd.backward([product for _, _, product in trained], gradients)
        for parameter, factor, _ in trained:
            assert parameter.grad is not None
            parameter.grad *= factor
        self.take_out()

    def fold(self, gates: Gates, filters: Gates | None = None) -> None:
        """The same as `put_in` without gradients; filters of channels that have a gate of zero become zero too, or a
        zero in `filters` where that is given."""
        with torch.no_grad():
            detached = {name: gate.detach() for name, gate in gates.items()}
            self.put_in(detached)
            self._products = []
            for parameter, factor in self.factors(detached if filters is None else filters, "filter"):
                parameter.mul_(factor != 0)

    def take_out(self) -> None:
        """Puts the weights without gates back, exactly as they were."""
        with torch.no_grad():
            for parameter, own in zip(self.parameters, self.own, strict=bool(self.own)):
                parameter.copy_(own)
        self.own, self._products = [], []

    def restore(self, own: Sequence[Tensor]) -> None:
        """Goes on from `own` of another process, whose network holds gates as this one does."""
        self.own = [tensor.to(parameter.device) for tensor, parameter in zip(own, self.parameters, strict=bool(own))]

    def factors(self, gates: Gates, role: str) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """What each parameter is multiplied by: the product of the gates at each of its places."""
        factors: dict[int, Tensor] = {}
        parameters: dict[int, nn.Parameter] = {}
        for group in self.groups:
            for part in group.parts:
                if part.role == role:
                    factor = _spread(part, gates[group.name])
                    key = id(part.parameter)
                    factors[key] = factors[key] * factor if key in factors else factor
                    parameters[key] = part.parameter
        yield from ((parameters[key], factor) for key, factor in factors.items())


def _spread(part: Part, gate: Tensor) -> Tensor:
    """The product of the gates at each place of a parameter, 1 where no unit is, as a tensor that its shape takes."""
    return part.spread(gate - 1, lambda each: (each + 1).prod(1) - 1) + 1


def _is_consumed(group: CoupledUnits) -> bool:
    """Whether each unit enters weights of a layer."""
    consumers = [part for part in group.parts if part.role == "consumer"]
    with torch.no_grad():
        counts = [part.sums(torch.ones_like(part.parameter)) for part in consumers]
    return bool(counts) and bool((torch.stack(counts).sum(0) > 0).all())


def _has_grad(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None
