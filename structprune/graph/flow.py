"""What flows through the graph and what the op rules write down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ops.provenance import Number, Size, Source, expression, multiple, settled
from .axes import Axis
from .units import Cause, Units


class Unsupported(Exception):
    """This use of an op is not understood; the message is the reason in the report."""


@dataclass(frozen=True)
class Value:
    """A tensor in the graph: its shape, what its axes carry, and the state_dict key if it is a parameter.

    `uniform` says that all its entries are one number, and stay so. `masked` says, for each axis, which number stands
    at every removed position of it in the dense network with the removed slices of all parameters set to zero (see
    `constants`); None where that is not known, () if nowhere.
    """

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    key: str | None = None
    uniform: bool = False
    masked: tuple[float | None, ...] = ()

    def at(self, dim: int) -> float | None:
        """What stands at the removed positions of axis `dim`."""
        return self.masked[dim] if self.masked else None

    @staticmethod
    def fixed(shape: Sequence[int]) -> Value:
        return Value(tuple(shape), (None,) * len(shape))

    @property
    def is_fixed(self) -> bool:
        return all(axis is None for axis in self.axes)


@dataclass(frozen=True)
class Stacked(Value):
    """Tensors along a new first axis, each with units of its own on the others: the states of a recurrent layer.

    All have one shape and equally many units on each axis, of which `axes` are those of the first.
    """

    parts: tuple[Value, ...] = ()

    @staticmethod
    def of(parts: Sequence[Value]) -> Stacked:
        first = parts[0]
        return Stacked((len(parts), *first.shape), (None, *first.axes), parts=tuple(parts))


def all_axes(value: Any) -> list[Axis]:
    if isinstance(value, Stacked):
        return all_axes(list(value.parts))
    return [axis for part in value for axis in all_axes(part)] if isinstance(value, list) else list(value.axes)


def fixed(value: Any) -> Any:
    """The same tensor or tensors, with nothing that can be removed."""
    return [fixed(part) for part in value] if isinstance(value, list) else Value.fixed(value.shape)


@dataclass
class Produced:
    """The channels that a layer makes: `depth` is the longest path from an input to the layer, in nodes."""

    depth: int
    key: str
    dim: int
    axis: np.ndarray


@dataclass
class Attribute:
    """A number of the model's modules that follows the positions left on `axis`, divided by `divisor`.

    Either the attribute `name` of each module that owns parameter `key`, or a `source`. With `flag`, the attribute
    becomes that value instead as soon as anything is removed.
    """

    axis: Axis
    divisor: int = 1
    key: str = ""
    name: str = ""
    source: Source | None = None
    flag: bool | None = None


@dataclass
class Cost:
    """Multiply-adds of one node: `constant` / `divisor` times the number of positions left on each of `axes`.

    `op` is the name under which fvcore counts the node.
    """

    op: str
    constant: int
    axes: tuple[np.ndarray, ...]
    divisor: int = 1


@dataclass
class Statistic:
    """A call that takes a statistic over channels, or contracts those of two tensors without weights.

    It is the `call`th of its op, from 0; `over` maps the place of a tensor among its arguments to {dim: axis}.
    `reduces` says that these axes end there (a mean), else its result has them too (LayerNorm). A contraction is
    `exact` where a channel whose weights are zero adds nothing to it.
    """

    call: int
    op: str
    module: str
    over: dict[int, dict[int, np.ndarray]]
    reduces: bool
    exact: bool


@dataclass
class Flow:
    """What the rules write to while the graph is traversed.

    `module_form` says that the slim network will be the user's own module, whose code must follow the widths.
    `roles` says what part a parameter's axis plays: filter (makes the channels), passed (one filter for each
    channel or block that enters), consumer, norm, bias or other. `blocked` holds parameter axes whose kept positions
    differ from block to block of axis 0 (grouped convolutions): the axes of all blocks, end to end.
    `op`, `module`, `line`, `depth`, `call` and `shape` describe the current node; an op with several outputs has a
    list of shapes.
    """

    module_form: bool = True
    units: Units = field(default_factory=Units)
    roles: dict[tuple[str, int], str] = field(default_factory=dict)
    blocked: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    attributes: list[Attribute] = field(default_factory=list)
    expressions: list[tuple[Any, Axis]] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    produced: list[Produced] = field(default_factory=list)
    statistics: list[Statistic] = field(default_factory=list)
    statistics_in_training: list[np.ndarray] = field(default_factory=list)  # axes that evaluation takes none over
    changing: list[np.ndarray] = field(default_factory=list)  # axes that are contracted in blocks, not masked by a zero
    floors: list[tuple[np.ndarray, int]] = field(default_factory=list)  # axes, and how many positions must stay
    keys: dict[int, tuple[str, int]] = field(default_factory=dict)  # first unit of a parameter's axis: whose it is
    op: str = ""
    node: str = ""
    module: str = ""
    line: str = ""
    depth: int = 0
    call: int = 0
    shape: Any = ()
    native: bool = False  # whether PyTorch's own code calls the current node
    results: dict[str, Any] = field(default_factory=dict)  # of the nodes so far, by their names
    written: bool = False  # whether the memory of what the current node makes is written to later

    def cause(self, reason: str) -> Cause:
        return Cause(self.op, self.node, self.module, reason, self.line)

    def freeze(self, axes: Sequence[Axis], reason: str | None) -> None:
        """Keeps the channels of `axes`; with a reason, the current node is reported as a barrier."""
        for axis in axes:
            if axis is not None:
                self.units.freeze(axis, None if reason is None else self.cause(reason))

    def tie(self, a: Axis, b: Axis) -> Axis:
        """Couples two axes position by position. A fixed axis on one side fixes the other."""
        if a is None or b is None:
            self.freeze([a, b], "couples these channels with an axis from which nothing can be removed")
            return None
        if len(a) != len(b):
            raise Unsupported(f"couples axes of {len(a)} and {len(b)} positions")
        coupled = self.units.couple(a, b, self.cause("couples these channels with some that can't go with them"))
        if coupled is b and a.shape == b.shape and (a >= 0).all() and self._is_owned(a) and not self._is_owned(b):
            return a  # the same channels, of which it is known which parameter makes them
        return coupled

    def unstacked(self, value: Any) -> Any:
        """The same tensor, where it is `Stacked` with the same units for all its parts: they go together."""
        if isinstance(value, list):
            return [self.unstacked(part) for part in value]
        if not isinstance(value, Stacked):
            return value
        axes = list(value.parts[0].axes)
        for part in value.parts[1:]:
            axes = [self.tie(a, b) for a, b in zip(axes, part.axes, strict=True)]
        return Value(value.shape, (None, *axes))

    def split(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """The axes of a row-major reshape of one axis."""
        if axis is None:
            return [None] * len(sizes)
        return self.units.split(axis, sizes, self.cause("splits these channels into parts that must stay whole"))

    def balance(self, blocks: Sequence[Axis], reason: str) -> None:
        """The parts of an axis must stay equally long."""
        live = [block for block in blocks if block is not None]
        if len(live) < len(blocks):
            self.freeze(live, reason)
        elif live:
            self.units.balance(live, self.cause(reason))

    def statistic(self, value: Value, dims: Sequence[int], reduces: bool = False) -> None:
        """Notes that this call takes a statistic over `dims` of its first tensor, for whoever masks instead of cuts."""
        over = {d: axis for d in dims if (axis := value.axes[d]) is not None}
        if over:
            self.statistics.append(Statistic(self.call, self.op, self.module, {0: over}, reduces, exact=False))

    def contracts(self, *places: tuple[int, Value, int]) -> None:
        """Notes that this call multiplies and sums channels of tensors, each (place, tensor, dim).

        Not where one of them is a filter or kernel, whose zeros mask the channels, unless they meet an infinity there.
        Removing channels is masking them with zero if one of the tensors is zero where the weights are.
        """
        over = {place: {dim % len(v.shape): axis} for place, v, dim in places if (axis := v.axes[dim]) is not None}
        values = [v.at(dim) for _, v, dim in places]
        finite = all(value is None or math.isfinite(value) for value in values)
        weighted = any(v.key is not None and len(v.shape) > 1 for _, v, _ in places)
        if len(over) == len(places) and not (weighted and finite):
            exact = finite and 0.0 in values
            self.statistics.append(Statistic(self.call, self.op, self.module, over, reduces=True, exact=exact))

    def role(self, value: Value, dim: int, role: str) -> None:
        """Notes the part of a parameter's axis, also where `value` is computed from the parameter."""
        owner = self.owner(value, dim)
        if owner is not None and self.roles.get(owner, "other") == "other":
            self.roles[owner] = role

    def owner(self, value: Value, dim: int) -> tuple[str, int] | None:
        """The parameter, and its axis, that axis `dim` of `value` comes from."""
        if value.key is not None:
            return value.key, dim
        axis = value.axes[dim]
        if axis is None or not (axis >= 0).any():
            return None
        return self.keys.get(self.units.origin(int(axis[axis >= 0].flat[0])))

    def _is_owned(self, axis: np.ndarray) -> bool:
        return axis.size > 0 and self.units.origin(int(axis.flat[0])) in self.keys

    def attribute(self, value: Value, name: str, axis: Axis, divisor: int = 1) -> None:
        """Notes that `name` of the modules that own parameter `value` follows `axis`."""
        owner = value.key or next((o[0] for d in range(len(value.shape)) if (o := self.owner(value, d))), None)
        if owner is not None and axis is not None:
            self.attributes.append(Attribute(axis, divisor, key=owner, name=name))

    def follow(self, number: Any, axis: Axis) -> None:
        """Notes that a number which the op was given must be the number of positions left on `axis`."""
        read = multiple(expression(number))
        if read is not None:
            self._as_wide(*read, axis, free=False)
        number = settled(number)
        if isinstance(number, Number):
            if number.source is not None:
                self.attributes.append(Attribute(axis, source=number.source))
            else:
                self.expressions.append((expression(number), axis))

    def spread(self, number: Any, size: int) -> Axis:
        """The axis of `size` copies of one position, of which any can go with what they meet; `number` is the size as
        the code gives it."""
        if size <= 1:
            return None
        axis: Axis = self.units.axis(size)
        read = multiple(expression(number))
        if read is not None and read[1] == 1:
            return self._as_wide(*read, axis, free=True)
        self.follow(number, axis)
        return axis

    def _as_wide(self, size: Size, times: int, axis: Axis, free: bool) -> Axis:
        """Keeps `axis` so many `times` as long as the one whose size the code read; if it is `free`, by a tie."""
        value = self.results.get(size.node)
        if not self.module_form or not isinstance(value, Value):
            return axis
        other = value.axes[size.dim]
        if other is None and axis is None:
            return None
        if free and other is None:
            self.freeze([axis], None)
            return None
        if free:
            return self.tie(other, axis)
        if axis is None or len(axis) != size.value * times:
            self.freeze([other, axis], "is read as a size where nothing can be removed")
        else:
            places = axis.reshape(size.value, times, -1)  # of each channel, or whole axes end to end
            each = (places == places[:, :1]).all()
            parts = [places[:, 0]] if each else list(np.split(axis, times))
            if other is None or len(parts) > 1 or not np.array_equal(other, parts[0]):
                self.balance([other, *parts], "is as wide as another axis, by whose size the code goes")
        return axis

    def cost(self, op: str, total: int, *axes: Axis, divisor: int = 1) -> None:
        """Notes a node of `total` multiply-adds in proportion to the length of each of `axes`, over `divisor`."""
        live = tuple(axis for axis in axes if axis is not None)
        constant = total * divisor // max(1, math.prod(len(axis) for axis in live))
        self.costs.append(Cost(op, constant, live, divisor))
