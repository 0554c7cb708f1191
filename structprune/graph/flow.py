"""What flows through the graph and what the op rules write down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .units import Axis, Units


class Unsupported(Exception):
    """This use of an op is not understood; the message is the reason in the report."""


@dataclass(frozen=True)
class Value:
    """A tensor in the graph: its shape, what its axes carry, and the state_dict key if it is a parameter."""

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    key: str | None = None

    @staticmethod
    def fixed(shape: Sequence[int]) -> Value:
        return Value(tuple(shape), (None,) * len(shape))

    @property
    def is_fixed(self) -> bool:
        return all(axis is None for axis in self.axes)


def all_axes(value: Any) -> list[Axis]:
    return [axis for part in value for axis in all_axes(part)] if isinstance(value, list) else list(value.axes)


def fixed(value: Any) -> Any:
    """The same tensor or tensors, with nothing that can be removed."""
    return [fixed(part) for part in value] if isinstance(value, list) else Value.fixed(value.shape)


FIXED = -1  # the cause of a freeze that is no barrier: the model's outputs keep their channels


@dataclass(frozen=True)
class Cause:
    """Why channels stay, and the node where they had to."""

    op: str
    node: str
    module: str
    reason: str


@dataclass
class Produced:
    """The channels that a layer makes: `depth` is the longest path from an input to the layer, in nodes."""

    depth: int
    key: str
    dim: int
    axis: np.ndarray


@dataclass
class Attribute:
    """An attribute of each module that owns parameter `key`: its new value is alive positions // divisor."""

    key: str
    name: str
    axis: np.ndarray
    divisor: int = 1


@dataclass
class Cost:
    """Multiply-adds of one node: `constant` times the number of positions left on each of `axes`.

    `op` is the name under which fvcore counts the node.
    """

    op: str
    constant: int
    axes: tuple[np.ndarray, ...]


@dataclass
class Flow:
    """What the rules write to while the graph is traversed.

    `roles` says what part a parameter's axis plays: filter (makes the channels), passed (one filter for each
    channel or block that enters), consumer, norm, bias or other. `op`, `module`, `depth` and `shape` describe
    the current node; an op with several outputs has a list of shapes.
    """

    units: Units = field(default_factory=Units)
    roles: dict[tuple[str, int], str] = field(default_factory=dict)
    attributes: list[Attribute] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    produced: list[Produced] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    op: str = ""
    node: str = ""
    module: str = ""
    depth: int = 0
    shape: Any = ()

    def freeze(self, axes: Sequence[Axis], reason: str | None) -> None:
        """Keeps the channels of `axes`; with a reason, the current node is reported as a barrier."""
        cause = FIXED
        if reason is not None:
            cause = len(self.causes)
            self.causes.append(Cause(self.op, self.node, self.module, reason))
        for axis in axes:
            if axis is not None:
                self.units.freeze(axis, cause)

    def tie(self, a: Axis, b: Axis) -> Axis:
        """Couples two axes position by position. A fixed axis on one side fixes the other."""
        if a is None or b is None:
            for axis in (a, b):
                if axis is not None:
                    self.freeze([axis], "couples these channels with an axis from which nothing can be removed")
            return None
        if a.shape != b.shape:
            raise Unsupported(f"couples axes of {a.shape} and {b.shape} (positions, factors)")
        uneven = ((a < 0) != (b < 0)).any(axis=1)  # positions that one side can't lose
        if uneven.any():
            self.freeze([a[uneven], b[uneven]], "couples these channels with some that can't be removed")
        both = ~uneven[:, None] & (a >= 0)
        self.units.tie(a[both], b[both])
        return np.where(uneven[:, None], -1, a) if uneven.any() else a

    def role(self, value: Value, dim: int, role: str) -> None:
        if value.key is not None:
            self.roles.setdefault((value.key, dim), role)

    def attribute(self, value: Value, name: str, axis: Axis, divisor: int = 1) -> None:
        """Notes that `name` of the modules that own parameter `value` follows `axis`."""
        if value.key is not None and axis is not None:
            self.attributes.append(Attribute(value.key, name, axis, divisor))

    def cost(self, op: str, total: int, *axes: Axis) -> None:
        """Notes a node of `total` multiply-adds in proportion to the length of each of `axes`."""
        live = tuple(axis for axis in axes if axis is not None)
        constant = total // math.prod(len(axis) for axis in live)
        self.costs.append(Cost(op, constant, live))
