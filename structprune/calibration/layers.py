"""The convolutions and linear layers of a forward pass, as they are called."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass

from torch import fx

from ..ops import Captured, op_name

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


@dataclass(frozen=True)
class Norm:
    """A call of a BatchNorm in evaluation mode: the `call`th of its op, and the keys of what it was given."""

    call: int
    place: int
    module: str
    weight: str | None
    bias: str | None
    mean: str
    variance: str
    eps: float

    @property
    def site(self) -> tuple[str, int]:
        return "batch_norm", self.call


@dataclass(frozen=True)
class Layer:
    """A call of a convolution or a linear layer whose weight is a parameter.

    It is the `call`th of its op, and the `place`th of all calls of a forward pass. `weight` and `bias` are state_dict
    keys. `norm` is the BatchNorm over its outputs that alone reads its result, if there is one. `entering` is the node
    of its input.
    """

    op: str
    call: int
    place: int
    module: str
    weight: str
    bias: str | None
    norm: Norm | None
    entering: fx.Node

    @property
    def site(self) -> tuple[str, int]:
        return self.op, self.call

    @property
    def transposed(self) -> bool:
        return self.op in TRANSPOSED


def find_layers(captured: Captured) -> tuple[list[Layer], list[Norm]]:
    """The layers and the BatchNorms of a forward pass, in the order in which they are called."""
    calls: Counter[str] = Counter()
    found: dict[fx.Node, tuple[str, int, int]] = {}
    for place, node in enumerate(ops(captured)):
        name = op_name(node.target)
        found[node] = (name, calls[name], place)
        calls[name] += 1

    def key(argument: object) -> str | None:
        return captured.parameters.get(argument.name) if isinstance(argument, fx.Node) else None

    norms: dict[fx.Node, Norm] = {}
    for node, (name, call, place) in found.items():
        if name == "batch_norm":
            weight, bias, mean, variance = (key(argument) for argument in node.args[1:5])
            if mean is not None and variance is not None:
                eps = float(node.args[7])  # type: ignore[arg-type]
                norms[node] = Norm(call, place, node.meta["module"], weight, bias, mean, variance, eps)
    layers = []
    for node, (name, call, place) in found.items():
        if name not in (*CONVOLUTIONS, *TRANSPOSED, "linear"):
            continue
        weight, entering = key(node.args[1]), node.args[0]
        if weight is None or not isinstance(entering, fx.Node):
            continue
        rank, kernel = entering.meta["val"].dim(), node.args[1].meta["val"].dim()  # type: ignore[union-attr]
        if rank < 2 or (name != "linear" and rank != kernel):
            continue  # no batch axis
        bias = key(node.args[2]) if len(node.args) > 2 else None
        users = [user for user in node.users if user in norms and user.args[0] is node]
        norm = norms[users[0]] if len(users) == len(node.users) == 1 else None
        if name == "linear" and rank != 2:
            norm = None  # which is over places, not over what the layer makes
        layers.append(Layer(name, call, place, node.meta["module"], weight, bias, norm, entering))
    return layers, list(norms.values())


def ops(captured: Captured) -> list[fx.Node]:
    """The nodes that are calls of ops, without those that take one result of several."""
    return [node for node in captured.calls if node.target is not operator.getitem]
