"""All that is known of an op: one frozen record each, which everything asks that has to do with ops.

A record says what the op does to channels (`rule`), and what else is worth knowing: what kind of layer it is, which of
its arguments are sizes, where its windows lie, how the graph form writes its calls. What a record leaves out is not
known, and never guessed: no rule is a barrier. `op` above a rule's function adds records from anywhere, `rule` those
that hold no more than the rule; those of the package are in `graph.rules`. Ops are named as in the ATen schema, without
overload and without the `_` of the in-place form, those of another namespace as `namespace::name`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import fx

from ..messages import unknown
from .window import Window

Sizes = Sequence[str] | Callable[[fx.Node], Sequence[str]]
_LAYER = {role: role for role in ("input", "weight", "bias")}
_NORM = {**_LAYER, "mean": "running_mean", "variance": "running_var", "eps": "eps"}
KINDS: Mapping[str, Mapping[str, str]] = {
    "convolution": {**_LAYER, "groups": "groups"},  # its weight has the shape (made, entering / groups, *kernel)
    "transposed convolution": {**_LAYER, "groups": "groups"},  # (entering, made / groups, *kernel)
    "linear": _LAYER,  # (made, entering), along the last axis of its input
    "product": {},  # of matrices, without a bias of its own
    "batch norm": _NORM,
    "recurrent": {},
}
EFFECTS = {
    "": "not known",
    "same": "leaves each number as it is",
    "activation": "a function of one number, without anything else that it reads",
    "average": "means over places, of each channel by itself",
    "mean": "the same over the axes that its argument `dim` names",
    "sum": "of two tensors, place by place",
    "joined": "tensors one after the other",
    "squeezed": "leaves the numbers, and drops axes",
}
CONVOLUTIONS = ("convolution", "transposed convolution")
R = TypeVar("R", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class OpRecord:
    """What is known of an op.

    Attributes:
        name: as `op_name` says it.
        rule: what it does to channels, a function of a `graph.Flow` and the op's arguments; None if that is not known.
        kind: what layer it is, one of `KINDS`; "" for what is none of them. By their kind layers are aligned, shown to
            criteria and mended.
        arguments: what the op calls the arguments of its kind, where that is not as in `KINDS`: {"weight": "filters"}.
        windows: of a convolution, a function of the op's own arguments, in their order, to a `Window`.
        sizes: the names of those arguments that are sizes: numbers that follow the widths, as shapes tell. Any other
            number that changes with a width is one that the model's code works out. Or a function from a recorded call
            to such names.
        spreads: whether it makes channels of its own: copies of one, or a tensor of one number.
        masked: what stands where channels were removed, in the dense network whose removed slices of parameters are
            zero: a law of `graph.constants`; None if that is not known, or follows from the kind.
        effect: what it does to the means and variances of channels, one of `EFFECTS`; "" if they can't be followed.
        rewrite: how the graph form writes a call where channels go (see `graph.rewrites`); None if as it was recorded.
        trusts: whether it reads memory that its arguments may not hold, as it trusts the sizes that it is given: no
            stored program may call it.
    """

    name: str
    rule: Callable[..., Any] | None = None
    kind: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    windows: Callable[..., Window] | None = None
    sizes: Sizes = ()
    spreads: bool = False
    masked: Callable[..., Any] | None = None
    effect: str = ""
    rewrite: Callable[..., Any] | None = None
    trusts: bool = False

    def __post_init__(self) -> None:
        if self.kind and self.kind not in KINDS:
            raise ValueError(f"op {self.name}: {unknown('kind', self.kind, KINDS)}")
        if self.effect not in EFFECTS:
            raise ValueError(f"op {self.name}: {unknown('effect', self.effect, EFFECTS)}")
        if (self.kind == "convolution") != (self.windows is not None):
            raise ValueError(f"op {self.name}: a convolution, and nothing else, says where its windows lie (windows)")
        for role in self.arguments:
            if role not in KINDS.get(self.kind, ()):
                raise ValueError(f"op {self.name}: {unknown('argument', role, KINDS.get(self.kind, ()))}")

    def takes(self, role: str) -> bool:
        """Whether ops of this kind have such an argument ("variance")."""
        return role in KINDS.get(self.kind, ())

    def name_of(self, role: str) -> str:
        """What the op calls an argument of its kind ("weight")."""
        return self.arguments.get(role) or KINDS[self.kind][role]

    def place(self, target: torch._ops.OpOverload, role: str) -> int | None:
        """Where an argument of the op's kind stands among all of its arguments, from 0; None if it takes none."""
        return place(target, self.name_of(role))

    def read(self, node: fx.Node, role: str) -> Any:
        """An argument of the op's kind in a recorded call; None if it takes none."""
        at = self.place(node.target, role)  # type: ignore[arg-type]
        return None if at is None else in_order(node.target, node.args, node.kwargs, at + 1)[at]

    def sizes_of(self, node: fx.Node) -> Sequence[str]:
        """The names of the arguments that are sizes in one call."""
        return self.sizes(node) if callable(self.sizes) else self.sizes


class Ops(dict[str, OpRecord]):
    """Records by the names of ops."""

    def add(self, record: OpRecord) -> None:
        """Adds a record, also in place of one without a rule. Raises ValueError for an op that has a rule."""
        if record.name in self and self[record.name].rule is not None:
            raise ValueError(f"op {record.name} has a rule already")
        self[record.name] = record

    def __missing__(self, name: str) -> OpRecord:
        raise KeyError(unknown("op", name, self))


OPS = Ops()
_UNKNOWN = OpRecord("")


def record_of(name: str) -> OpRecord:
    """What is known of an op; an empty record if that is nothing."""
    _fill()
    return OPS.get(name, _UNKNOWN)


def is_known(name: str) -> bool:
    """Whether an op has a record."""
    return bool(record_of(name).name)


@functools.cache
def _fill() -> None:
    importlib.import_module("structprune.graph.rules")  # whose modules add the package's own


def op(
    *names: str,
    kind: str = "",
    arguments: Mapping[str, str] | None = None,
    windows: Callable[..., Window] | None = None,
    sizes: Sizes = (),
    spreads: bool = False,
    masked: Callable[..., Any] | None = None,
    effect: str = "",
    rewrite: Callable[..., Any] | None = None,
    trusts: bool = False,
) -> Callable[[R], R]:
    """Registers what is known of ops, above the function that is their rule. See `OpRecord` for what each argument is.

    Args:
        names: the ops that the function is the rule of.
        kind: what layer they are, one of `KINDS`.
        arguments: what they call the arguments of their kind.
        windows: where the windows of a convolution lie.
        sizes: which arguments are sizes.
        spreads: whether they make channels of their own.
        masked: what stands where channels were removed.
        effect: what they do to the means and variances of channels.
        rewrite: how the graph form writes a call.
        trusts: whether they read memory that their arguments may not hold.

    Returns:
        A decorator that leaves the function as it is. It raises ValueError for an op that has a rule,
        and for a kind or an argument that is none.
    """

    def register(function: R) -> R:
        for name in names:
            OPS.add(
                OpRecord(
                    name, function, kind, arguments or {}, windows, sizes, spreads, masked, effect, rewrite, trusts
                )
            )
        return function

    return register


def rule(*names: str) -> Callable[[R], R]:
    """Registers a rule for ops of which nothing else need be known. See `op`.

    Args:
        names: The ops that the function is the rule of.

    Returns:
        A decorator that leaves the function as it is.
    """
    return op(*names)


@functools.cache
def place(target: torch._ops.OpOverload, argument: str) -> int | None:
    """Where an argument stands among those of an op, from 0; None if the op takes no such argument."""
    names = [one.name for one in target._schema.arguments]
    return names.index(argument) if argument in names else None


def in_order(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], least: int = 0) -> Sequence[Any]:
    """The arguments of a call in the op's own order: those that were given, and at least so many; else defaults."""
    if not kwargs and len(args) >= least:
        return args
    ordered = list(args)
    last = max((place(target, name) or 0 for name in kwargs), default=-1) + 1
    for argument in target._schema.arguments[len(args) : max(last, least)]:
        ordered.append(kwargs.get(argument.name, argument.default_value))
    return ordered
