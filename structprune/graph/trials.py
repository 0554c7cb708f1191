"""Runs a network at other sizes of its inputs: which axes may change, and what every size in it is then.

A program must know of each number whether it follows the batch, the image or the length of a sequence. So the recording
is repeated with one axis of the inputs longer, and with all of them. An axis is *free* where the network makes the same
calls then; any other is *fixed*, and the slim network says so when it is given another size.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from ..module_numbers import read
from ..modules import replace_tensors, skeleton_copy, tensors
from ..ops import Captured, Inputs, leaves_of
from ..ops.conditions import Condition
from ..ops.forward_pass import record
from ..ops.provenance import Read, Size, Source, evaluate, leaves

REFUSED = "the network does not take another"
COMPARED = "the model's code compares it"  # a check in the program tells the sizes at which this path is taken


class Axis(NamedTuple):
    """Axes of the inputs that change together: (place among the tensors, dim) of each, and their size as traced."""

    members: tuple[tuple[int, int], ...]
    size: int
    is_batch: bool


@dataclass(frozen=True)
class Trial:
    """A recording at other sizes: the calls are those of the traced one, whose node names `nodes` goes by.

    `compared` has both sides of each of `conditions_of`, None where they are not known.
    """

    sizes: Mapping[Axis, int]
    nodes: Mapping[str, fx.Node]
    compared: tuple[tuple[Any, Any], ...] = ()


@dataclass(frozen=True)
class Retyped:
    """A recording in another dtype: the dtype of weights and inputs as traced, that one, and the calls there."""

    traced: torch.dtype
    other: torch.dtype
    nodes: Mapping[str, fx.Node]


@dataclass(frozen=True)
class Sizes:
    """The axes of the inputs: those that may change, those that may not and why, and recordings at other sizes."""

    free: tuple[Axis, ...]
    fixed: Mapping[Axis, str]
    trials: tuple[Trial, ...]
    retyped: Retyped | None = None

    def fixing(self, axes: set[Axis], reason: str) -> Sizes:
        """The same with some axes fixed, for a reason."""
        return Sizes(
            tuple(axis for axis in self.free if axis not in axes),
            {**self.fixed, **dict.fromkeys(axes, reason)},
            tuple(trial for trial in self.trials if not axes & set(trial.sizes)),
            self.retyped,
        )

    def notes(self, names: list[str]) -> list[str]:
        """What a user should know of sizes that the network takes and its graph form does not; `names` of inputs."""
        return [
            f"the graph form takes {names[place]} of size {axis.size} on axis {dim} only: {reason}"
            for axis, reason in self.fixed.items()
            for place, dim in axis.members[:1]
            if not reason.startswith(REFUSED)
        ]

    def moved_by(self, changes: list[bool]) -> set[Axis]:
        """The axes that a number follows, of which is known in which trials it changes."""
        alone: set[Axis] = set()
        for trial, changed in zip(self.trials, changes, strict=True):
            if changed and len(trial.sizes) == 1:
                alone |= set(trial.sizes)
        together = {a for trial, changed in zip(self.trials, changes, strict=True) if changed for a in trial.sizes}
        return alone or {axis for axis in together if not axis.is_batch} or together


# How an axis may grow: by one or two, as networks that pad or round do; by whole steps; from square to square, as grids
# of tokens do, with a token beside them or without.
_GROWTHS: tuple[Callable[[int, int], int], ...] = (
    lambda size, times: size + times,
    lambda size, times: size * (1 + times),
    lambda size, times: size + 16 * times,
    lambda size, times: size + 32 * times,
    lambda size, times: (math.isqrt(size) + times) ** 2,
    lambda size, times: (math.isqrt(max(0, size - 1)) + times) ** 2 + 1,
)


def explore(model: nn.Module, recording: Captured) -> Sizes:
    """Records a model once more, at other sizes of the inputs that it was recorded with."""
    batch, others = axes_of(recording.inputs)
    sizes, growth = Sizes((), {}, (), _retyped(model, recording)), {}
    for axis in [*batch, *others]:
        if any(axis.members[0] in free.members for free in sizes.free):
            continue
        growth_of_axis = _grown(model, recording, axis, others)
        if isinstance(growth_of_axis, str):
            sizes = replace(sizes, fixed={**sizes.fixed, axis: growth_of_axis})
        else:
            trial, grow = growth_of_axis
            growth.update(dict.fromkeys(trial.sizes, grow))
            sizes = replace(sizes, free=(*sizes.free, *trial.sizes), trials=(*sizes.trials, trial))
    joint = {m for axis in sizes.free for m in axis.members}
    sizes = replace(sizes, fixed={a: why for a, why in sizes.fixed.items() if not joint & set(a.members)})
    return _again(model, recording, sizes, growth)


def _grown(
    model: nn.Module, recording: Captured, axis: Axis, others: list[Axis]
) -> tuple[Trial, Callable[[int, int], int]] | str:
    """The first way of growing in which the network makes the same calls, or why there is none."""
    reason = ""
    for axes in _alone_or_together(axis, others):
        tried = set()
        for grow in _GROWTHS[:2] if axis.is_batch else _GROWTHS:
            size = grow(axis.size, 1)
            if size <= axis.size or size in tried:
                continue
            tried.add(size)
            result = _attempt(model, recording, {axes: size})
            if isinstance(result, Trial):
                return result, grow
            if not result.startswith((REFUSED, COMPARED)):
                return result  # what steers the code was not seen, so nothing tells at which sizes it goes this way
            reason = reason if reason and result.startswith(REFUSED) else result
    return reason


def _again(
    model: nn.Module, recording: Captured, sizes: Sizes, growth: Mapping[Axis, Callable[[int, int], int]]
) -> Sizes:
    """With a second size of each free axis, all together and no two alike; or one by one where that does not run.

    An axis on which the code takes another path at the second is not free: what steers it was not seen. Nor is one,
    other than the batch, that has no second size in any way of growing: at the first alone, numbers that follow it may
    have stayed (a network that halves its image and doubles it again makes the same of 12 and 13 pixels).
    """
    second = {axis: growth[axis](axis.size, 7 if axis.is_batch else 6 + 5 * i) for i, axis in enumerate(sizes.free)}
    if not second:
        return sizes
    result = _attempt(model, recording, second)
    if isinstance(result, Trial):
        return replace(sizes, trials=(*sizes.trials, result))
    for axis, size in second.items():
        tried = {trial.sizes[axis] for trial in sizes.trials if axis in trial.sizes}
        result = _second(model, recording, axis, size, tried)
        if isinstance(result, Trial):
            sizes = replace(sizes, trials=(*sizes.trials, result))
        elif not result.startswith((REFUSED, COMPARED)):
            sizes = sizes.fixing({axis}, result)
        elif not axis.is_batch:
            alone = " and ".join(map(str, sorted(tried)))
            sizes = sizes.fixing(
                {axis}, f"beside it the network was seen to take {alone} alone, which shows too little"
            )
    return sizes


def _second(model: nn.Module, recording: Captured, axis: Axis, size: int, tried: set[int]) -> Trial | str:
    """A recording at one more size of an axis, the given one or the first that a way of growing gives; or why not."""
    ways = _GROWTHS[:2] if axis.is_batch else _GROWTHS
    sizes = dict.fromkeys([size, *(grow(axis.size, times) for times in (1, 2, 4) for grow in ways)])
    reason = f"{REFUSED} (no other size was tried)"
    for other in sizes:
        if other <= axis.size or other in tried:
            continue
        result = _attempt(model, recording, {axis: other})
        if isinstance(result, Trial) or not result.startswith((REFUSED, COMPARED)):
            return result
        reason = result
    return reason


def made_anew(model: nn.Module, captured: Captured) -> Captured:
    """The recording; where it holds tensors that the code keeps for the size it ran at last, one with those anew."""
    constants = _constants(captured)
    if not constants:
        return captured
    batch, others = axes_of(captured.inputs)
    others = [axis for axis in others if axis.members[0][1] != 1 or captured.inputs.flat()[0].dim() < 4]
    tries: list[Inputs | None] = [
        resized(captured.inputs, {axis: grow(axis.size, 4) for axis in axes})
        for axes in ([*batch, *others], others, batch)
        for grow in (_GROWTHS if axes is not batch else _GROWTHS[:1])
        if axes
    ]
    for first in [*tries, None]:
        try:
            again, error = record(model, captured.inputs, scenario=replace(captured.scenario, anew=True, first=first))
        except Exception:  # the model does not take that size, or asks for values at it
            continue
        if error is None and len(_constants(again)) < len(constants) and not any(_constants(again)):
            return again
    return captured


def _constants(captured: Captured) -> list[bool]:
    """Of each tensor that the model did not make, whether it has no values (a cache kept it from another recording)."""
    return [node.meta["val"].is_meta for node in captured.graph.nodes if node.op == "get_attr"]


def _retyped(model: nn.Module, recording: Captured) -> Retyped | None:
    """A recording in double precision (in single, of a double network), if the model makes the same calls then."""
    state = tensors(model)
    dtypes = Counter(t.dtype for t in (*state.values(), *tensors_of(recording.inputs.flat())) if t.is_floating_point())
    if not dtypes:
        return None
    traced = dtypes.most_common(1)[0][0]
    other = torch.float32 if traced == torch.float64 else torch.float64

    def cast(x: Tensor) -> Tensor:
        return torch.empty_like(x, dtype=other if x.dtype == traced else None, device="meta")

    copy = skeleton_copy(model, buffers=False)
    replace_tensors(copy, {key: cast(tensor) for key, tensor in state.items()})
    again, error = record(copy, recording.inputs.map(cast), scenario=recording.scenario)
    here, there = list(recording.graph.nodes), list(again.graph.nodes)
    if error is not None or [_kind(a) for a in here] != [_kind(b) for b in there]:
        return None
    return Retyped(traced, other, {a.name: b for a, b in zip(here, there, strict=True)})


def axes_of(inputs: Inputs) -> tuple[list[Axis], list[Axis]]:
    """The axis of the batch, if there is one, and all others."""
    tensors = tensors_of(inputs.flat())
    batch = batch_of(inputs)
    first = tuple((i, 0) for i, x in enumerate(tensors) if x.dim() and x.shape[0] == batch)
    others = [
        Axis(((i, d),), int(size), False)
        for i, x in enumerate(tensors)
        for d, size in enumerate(x.shape)
        if (i, d) not in first
    ]
    return ([Axis(first, batch, True)] if first else []), others


def batch_of(inputs: Inputs) -> int:
    """The size of axis 0 of the first tensor that has one."""
    return next((int(x.shape[0]) for x in inputs.flat() if isinstance(x, Tensor) and x.dim()), 1)


def _alone_or_together(axis: Axis, others: list[Axis]) -> Iterator[Axis]:
    """An axis by itself, then with all of its size (the height and width of a square image, ids and their mask)."""
    yield axis
    members = tuple(m for other in others if other.size == axis.size for m in other.members)
    if len(members) > 1 and not axis.is_batch:
        yield Axis(members, axis.size, False)


def _attempt(model: nn.Module, recording: Captured, sizes: Mapping[Axis, int]) -> Trial | str:
    """A recording at other sizes, or why it does not tell how numbers follow them."""
    again, error = record(model, resized(recording.inputs, sizes), scenario=recording.scenario)
    if error is not None and not again.unknown:
        return f"{REFUSED} ({error})"
    return _aligned(model, recording, again, sizes)


def resized(inputs: Inputs, sizes: Mapping[Axis, int]) -> Inputs:
    """The inputs with some axes of other sizes, those that change without storage."""
    changed = {member: size for axis, size in sizes.items() for member in axis.members}
    flat, place = inputs.flat(), -1
    for i, x in enumerate(flat):
        if isinstance(x, Tensor):
            place += 1
            shape = [changed.get((place, dim), size) for dim, size in enumerate(x.shape)]
            flat[i] = x if shape == list(x.shape) else torch.empty(shape, dtype=x.dtype, device="meta")
    return inputs.rebuild(flat)


def _aligned(model: nn.Module, recording: Captured, other: Captured, sizes: Mapping[Axis, int]) -> Trial | str:
    here, there = list(recording.graph.nodes), list(other.graph.nodes)
    ours, theirs = conditions_of(recording), conditions_of(other)
    for one, two in zip(ours, theirs, strict=False):
        if (one.test[0], one.line) != (two.test[0], two.line):
            return "the model's code takes another path at another size, before a comparison shows which"
        if one.outcome != two.outcome:
            return f"{COMPARED} ({one.line})"
    if len(ours) != len(theirs) or [_kind(a) for a in here] != [_kind(b) for b in there]:
        return "the model's code takes another path at another size"
    nodes = {a.name: b for a, b in zip(here, there, strict=True)}
    for a, b in zip(here, there, strict=True):
        why = _differs(a, b, nodes)
        if why:
            return why
    compared = tuple((side(c.test[1], model), side(c.test[2], model)) for c in theirs)
    return Trial(sizes, nodes, compared)


def _kind(node: fx.Node) -> Any:
    return node.op, node.target if node.op == "call_function" else ""


def _differs(a: fx.Node, b: fx.Node, nodes: Mapping[str, fx.Node]) -> str:
    """What is not the same in two recordings of a call, apart from whole numbers."""
    where = f"{a.meta.get('module') or 'forward'}, {a.meta.get('line', '')}"
    if a.op == "get_attr":
        one, two = a.meta["val"], b.meta["val"]
        if one.shape != two.shape or one.device != two.device or (not one.is_meta and not torch.equal(one, two)):
            return "the model keeps a tensor for the size that it ran at"
        return ""
    if a.target is operator.getitem:
        return "" if a.args[1] == b.args[1] else f"another part is taken ({where})"
    if a.op != "call_function":
        return ""
    one, two = list(leaves_of((a.args, a.kwargs))), list(leaves_of((b.args, b.kwargs)))
    if len(one) != len(two):
        return f"{a.target} gets other arguments ({where})"
    for x, y in zip(one, two, strict=True):
        whole = type(x) is not bool and isinstance(x, int) and type(y) is not bool and isinstance(y, int)
        if isinstance(x, fx.Node) and nodes[x.name] is y:
            continue
        if isinstance(x, fx.Node) or isinstance(y, fx.Node):
            return f"{a.target} gets another tensor ({where})"
        if not whole and repr(x) != repr(y) and not (isinstance(x, float) and isinstance(y, float)):
            return f"{a.target} gets {x!r}, and {y!r} at another size ({where})"
    ranks = [[t.dim() for t in tensors_of(n.meta["val"])] for n in (a, b)]
    return "" if ranks[0] == ranks[1] else f"{a.target} makes other shapes ({where})"


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors that a node made."""
    return [x for x in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(x, Tensor)]


def conditions_of(captured: Captured) -> list[Condition]:
    """The comparisons of one recording's sizes: a cache may keep some of another, to find them different."""
    return [c for c in captured.conditions if len({x.run for x in leaves(c.test) if isinstance(x, Size)}) == 1]


def side(expression: Any, model: nn.Module) -> Any:
    """What one side of a comparison came to when it was recorded, None if it holds what is not known."""
    known = {
        leaf: leaf.value if isinstance(leaf, (Size, Read)) else attribute(model, leaf) for leaf in leaves(expression)
    }
    return None if None in known.values() else evaluate(expression, known)


def attribute(model: nn.Module, source: Source) -> int | None:
    """The dense value of an attribute, None if it is not found."""
    try:
        value = read(model.get_submodule(source.module), source.name)
        return int(value if source.place is None else value[source.place])
    except (AttributeError, TypeError, IndexError, KeyError, ValueError):
        return None
