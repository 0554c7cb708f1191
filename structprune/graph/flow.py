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
from .values import Stacked, Value


class Unsupported(Exception):
    """This use of an op is not understood; the message is the reason in the report."""


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
        """Makes what a barrier or a coupling at the current call is reported with.

        Args:
            reason: what the call does, as in 'splits these channels'

        Returns:
            The reason with the call's op, module and line of code.
        """
        return Cause(self.op, self.node, self.module, reason, self.line)

    def freeze(self, axes: Sequence[Axis], reason: str | None) -> None:
        """Keeps all channels of some axes.

        Args:
            axes: axes of units; None among them is passed over
            reason: reports the current call as a barrier; None reports nothing
        """
        for axis in axes:
            if axis is not None:
                self.units.freeze(axis, None if reason is None else self.cause(reason))

    def tie(self, a: Axis, b: Axis) -> Axis:
        """Couples two axes position by position. A fixed axis on one side fixes the other.

        Args:
            a: an axis of units or None
            b: the other

        Returns:
            The coupled axis; None where it is fixed.

        Raises:
            Unsupported: they differ in length
        """
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
        """Couples the parts of a stacked tensor, which then go together.

        Args:
            value: what the recording holds for a tensor, or a list of it

        Returns:
            The tensor as one value; as it is if it is not `Stacked`.
        """
        if isinstance(value, list):
            return [self.unstacked(part) for part in value]
        if not isinstance(value, Stacked):
            return value
        axes = list(value.parts[0].axes)
        for part in value.parts[1:]:
            axes = [self.tie(a, b) for a, b in zip(axes, part.axes, strict=True)]
        return Value(value.shape, (None, *axes))

    def split(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """Splits an axis as a row-major reshape does.

        Args:
            axis: an axis of units or None
            sizes: the sizes that it is reshaped to

        Returns:
            One axis for each size; None each where it is fixed.
        """
        if axis is None:
            return [None] * len(sizes)
        return self.units.split(axis, sizes, self.cause("splits these channels into parts that must stay whole"))

    def balance(self, blocks: Sequence[Axis], reason: str) -> None:
        """Says that the parts of an axis must stay equally long.

        Args:
            blocks: the parts, None for a fixed one, which fixes the others
            reason: why, for the report
        """
        live = [block for block in blocks if block is not None]
        if len(live) < len(blocks):
            self.freeze(live, reason)
        elif live:
            self.units.balance(live, self.cause(reason))

    def statistic(self, value: Value, dims: Sequence[int], reduces: bool = False) -> None:
        """Notes that this call takes a statistic of its first tensor, for whoever masks instead of cuts.

        Args:
            value: the tensor
            dims: the dimensions that the statistic is over
            reduces: whether the dimensions are gone from the result
        """
        over = {d: axis for d in dims if (axis := value.axes[d]) is not None}
        if over:
            self.statistics.append(Statistic(self.call, self.op, self.module, {0: over}, reduces, exact=False))

    def contracts(self, *places: tuple[int, Value, int]) -> None:
        """Notes that this call multiplies and sums channels of tensors.

        Not where one of them is a filter or kernel, whose zeros mask the channels, unless they meet an infinity there.
        Removing channels is masking them with zero if one of the tensors is zero where the weights are.

        Args:
            places: each (argument's place, tensor, dimension)
        """
        over = {place: {dim % len(v.shape): axis} for place, v, dim in places if (axis := v.axes[dim]) is not None}
        values = [v.at(dim) for _, v, dim in places]
        finite = all(value is None or math.isfinite(value) for value in values)
        weighted = any(v.key is not None and len(v.shape) > 1 for _, v, _ in places)
        if len(over) == len(places) and not (weighted and finite):
            exact = finite and 0.0 in values
            self.statistics.append(Statistic(self.call, self.op, self.module, over, reduces=True, exact=exact))

    def role(self, value: Value, dim: int, role: str) -> None:
        """Notes the part of a parameter's axis, also where the value is computed from the parameter.

        Args:
            value: the parameter, or a tensor made from it
            dim: the dimension
            role: 'filter', 'input' and so on, as in `Slice.role`
        """
        owner = self.owner(value, dim)
        if owner is not None and self.roles.get(owner, "other") == "other":
            self.roles[owner] = role

    def owner(self, value: Value, dim: int) -> tuple[str, int] | None:
        """Finds the parameter that a tensor's axis comes from.

        Args:
            value: a tensor of the forward pass
            dim: its dimension

        Returns:
            The parameter's name and its dimension; None where it comes from no parameter.
        """
        if value.key is not None:
            return value.key, dim
        axis = value.axes[dim]
        if axis is None or not (axis >= 0).any():
            return None
        return self.keys.get(self.units.origin(int(axis[axis >= 0].flat[0])))

    def _is_owned(self, axis: np.ndarray) -> bool:
        return axis.size > 0 and self.units.origin(int(axis.flat[0])) in self.keys

    def attribute(self, value: Value, name: str, axis: Axis, divisor: int = 1) -> None:
        """Notes that an attribute of modules follows the length of an axis.

        Args:
            value: a parameter that the modules own
            name: the attribute's name, such as `out_channels`
            axis: the axis of units
            divisor: the attribute is the length over this
        """
        owner = value.key or next((o[0] for d in range(len(value.shape)) if (o := self.owner(value, d))), None)
        if owner is not None and axis is not None:
            self.attributes.append(Attribute(axis, divisor, key=owner, name=name))

    def follow(self, number: Any, axis: Axis) -> None:
        """Notes that a number that the op was given must be the number of positions left on an axis.

        Args:
            number: an int, or the number with where it comes from
            axis: the axis of units
        """
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
        """Makes the axis of copies of one position, of which any can go with what they meet.

        Args:
            number: the size as the code gives it
            size: how many copies there are

        Returns:
            The axis; None where there is one copy or none.
        """
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
        """Notes the multiply-adds of a node, in proportion to the length of each axis.

        Args:
            op: the operator, as fvcore names it
            total: multiply-adds of the dense network
            axes: the axes of units that they grow with
            divisor: multiply-adds are the product over this
        """
        live = tuple(axis for axis in axes if axis is not None)
        constant = total * divisor // max(1, math.prod(len(axis) for axis in live))
        self.costs.append(Cost(op, constant, live, divisor))
