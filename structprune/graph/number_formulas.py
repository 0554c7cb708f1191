"""How the numbers of a program follow widths and the sizes of inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, fx

from ..ops import op_name
from ..ops.conditions import Condition
from ..ops.laws import At, Known, Term, Wanted, places, solve, solve_real
from ..ops.provenance import Number, Read, Real, Size, Source
from . import trials
from .axes import alive
from .channels import ChannelGraph
from .trials import Axis, Sizes
from .values import Value

_RECENT = 4  # how many calls before another one are looked at for what its numbers follow


class StuckError(Exception):
    """A number that follows some axes of the inputs in a way that is not found."""

    def __init__(self, axes: set[Axis], reason: str) -> None:
        super().__init__(reason)
        self.axes, self.reason = axes, reason


class Unsolved(tuple):
    """A number that changes with the inputs in a way that is not found: what it is at each recorded size."""


class Follower:
    """Finds how numbers follow; `term` writes what is found."""

    def __init__(self, graph: ChannelGraph, removed: np.ndarray, sizes: Sizes) -> None:
        self.graph, self.removed, self.sizes = graph, removed, sizes
        entering = [n for n in graph.recording.graph.nodes if n.op == "placeholder"]
        self.inputs = [n.name for n in entering if n.name not in graph.recording.parameters]
        self.known = Known(self.recorded, self.slim)

    def term(self, term: Term) -> Any:
        raise NotImplementedError

    def tensors(self) -> list[Tensor]:
        return [x for x in self.graph.inputs.flat() if isinstance(x, Tensor)]

    def stuck(self, node: fx.Node, numbers: tuple[int, ...]) -> StuckError:
        axes = self.sizes.moved_by([number != numbers[0] for number in numbers[1:]])
        now = f"{numbers[0]}, and {', '.join(map(str, sorted(set(numbers[1:]))))} at other sizes"
        where = f"{node.meta['module'] or 'forward'} ({node.meta['line']})"
        return StuckError(axes, f"{op_name(node.target)} in {where} gets {now}")

    def value(self, node: Any) -> Any:
        return self.graph.values[node.name]

    def length(self, axis: np.ndarray | None, size: int) -> int:
        return size if axis is None or not len(axis) else int(alive(self.graph.classes_of(axis), self.removed).sum())

    def length_of(self, node: Any, dim: int) -> int:
        """The slim length of an axis; of a grouped convolution's weight, of one block."""
        value: Value = self.value(node)
        if value.key is not None and (value.key, dim) in self.graph.blocked:
            axis = self.graph.axes[value.key, dim]  # of all blocks
            return int(alive(axis, self.removed).sum()) * value.shape[dim] // len(axis)
        return self.length(value.axes[dim], value.shape[dim])

    def recorded(self, at: At) -> tuple[int, ...]:
        """The size of an axis as traced, and in each trial."""
        nodes = [trial.nodes[at.node] for trial in self.sizes.trials]
        traced = self.graph.values[at.node].shape[at.dim]
        return (int(traced), *(int(node.meta["val"].shape[at.dim]) for node in nodes))

    def slim(self, at: At) -> int:
        value: Value = self.graph.values[at.node]
        return self.length(value.axes[at.dim], value.shape[at.dim])

    def near(self, node: fx.Node) -> list[At]:
        """The axes that a number of a call may follow: of what enters it, of the inputs, of what came before."""
        before = [n for n in node.all_input_nodes if isinstance(self.graph.values.get(n.name), Value)]
        earlier = [p for n in before for p in n.all_input_nodes if isinstance(self.graph.values.get(p.name), Value)]
        last: list[fx.Node] = []  # what is written into a part of a tensor is made after the part
        while len(last) < _RECENT and (last[-1] if last else node).prev.op == "call_function":
            last.append((last[-1] if last else node).prev)
        recent = [n for n in last if isinstance(self.graph.values.get(n.name), Value)]
        names = dict.fromkeys([*(n.name for n in before), *self.inputs, *(n.name for n in (*recent, *earlier))])
        return [At(name, dim) for name in names for dim in range(len(self.graph.values[name].shape))]

    def number(self, node: fx.Node, number: Any, others: list[int], slim: int | None = None) -> Any:
        """A number of a call in the slim network: itself, a reference to what computes it, or `Unsolved`."""
        slim = int(number) if slim is None else slim
        own = self.expression(number.expression) if isinstance(number, Number) else None
        if all(other == number for other in others) and not self.moves(own):
            return slim
        numbers = Wanted((int(number), *map(int, others)), slim)
        term = solve(numbers, own, self.near(node), self.known)
        if term is None and all(other == number for other in others):
            return slim
        return Unsolved(numbers.recorded) if term is None else self.term(term)

    def moves(self, term: Term) -> bool:
        """Whether a term reads sizes that follow the inputs."""
        return any(len(set(self.recorded(at))) > 1 for at in places(term))

    def others(self, node: fx.Node, *path: Any) -> list[int]:
        """What a number of a call is in each trial; `path` says where it is ("args", 1, 0)."""
        return [int(found_at(trial.nodes[node.name], path)) for trial in self.sizes.trials]

    def expression(self, expression: Any) -> Term | None:
        """A number's expression as a term, or None if it holds what is not known."""
        if isinstance(expression, Size):
            return At(expression.node, expression.dim) if expression.node in self.graph.values else None
        if isinstance(expression, Read):
            return None
        if isinstance(expression, Source):
            return trials.attribute(self.graph.model, expression)
        if isinstance(expression, tuple):
            left, right = self.expression(expression[1]), self.expression(expression[2])
            return None if left is None or right is None else (expression[0], left, right)
        return expression

    def real(self, node: fx.Node, number: float, path: tuple[Any, ...]) -> Any:
        """The same for a number that is not whole."""
        others = [float(found_at(trial.nodes[node.name], path)) for trial in self.sizes.trials]
        own = self.expression(number.expression) if isinstance(number, Real) else None
        if own is not None and self.moves(own):
            numbers = Wanted((float(number), *others), float(number))
            return self.term(own) if self.known.fits(own, numbers) else Unsolved(numbers.recorded)
        if all(other == number for other in others):
            return float(number)
        term = solve_real((float(number), *others), self.near(node), self.known)
        return Unsolved((float(number), *others)) if term is None else self.term(term)

    def shape(self, node: fx.Node, sizes: Any = None) -> list[Any]:
        """The slim shape of what a node makes. `sizes` is what the code gave, whose -1 stay as they are."""
        value: Value = self.value(node)
        shapes = [trial.nodes[node.name].meta["val"].shape for trial in self.sizes.trials]
        result: list[Any] = []
        for dim, (size, axis) in enumerate(zip(value.shape, value.axes, strict=True)):
            if sizes is not None and dim < len(sizes) and isinstance(sizes[dim], int) and sizes[dim] == -1:
                result.append(-1)
                continue
            own = sizes[dim] if sizes is not None and dim < len(sizes) and isinstance(sizes[dim], Number) else size
            own = own if int(own) == size else size
            result.append(self.number(node, own, [int(s[dim]) for s in shapes], self.length(axis, size)))
        return result

    def compared(self, condition: Condition, place: int, others: list[Any]) -> Term:
        """One side of a comparison: a number, or a term that gives it at every recorded size."""
        expression = condition.test[1 + place]
        own, now = self.expression(expression), trials.side(expression, self.graph.model)
        if own is not None:
            own = self.early(self.of_inputs(own))
        if not places(own) and all(other == now for other in others):
            return now
        where = f"{condition.module or 'forward'} ({condition.line})"
        if now is None or any(other is None for other in others):
            raise StuckError(set(self.sizes.free), f"a comparison in {where} is of numbers that are not known")
        recorded = (now, *others)
        near = [At(name, dim) for name in self.inputs for dim in range(len(self.graph.values[name].shape))]
        term = solve(Wanted(recorded, recorded[0]), own, [*places(own), *near], self.known)
        if term is None:
            axes = self.sizes.moved_by([number != recorded[0] for number in recorded[1:]])
            raise StuckError(
                axes or set(self.sizes.free), f"a comparison in {where} follows it in a way that is not found"
            )
        return term

    def early(self, term: Term) -> Term:
        """A term with sizes of inputs for those that are always the same, so that it is known from the start."""
        if isinstance(term, At) and term.node not in self.inputs:
            entering = (At(name, dim) for name in self.inputs for dim in range(len(self.graph.values[name].shape)))
            same = (
                at for at in entering if self.recorded(at) == self.recorded(term) and self.slim(at) == self.slim(term)
            )
            return next(same, term)
        return (term[0], self.early(term[1]), self.early(term[2])) if type(term) is tuple else term

    def of_inputs(self, term: Term) -> Term:
        """A term in which sizes that do not follow the inputs are numbers: the dense ones, as the code knows them."""
        if isinstance(term, At):
            return term if len(set(self.recorded(term))) > 1 else self.recorded(term)[0]
        return (term[0], self.of_inputs(term[1]), self.of_inputs(term[2])) if isinstance(term, tuple) else term


def found_at(node: fx.Node, path: tuple[Any, ...]) -> Any:
    """The argument of a call at a path: ("args", 1, 0)."""
    value: Any = getattr(node, path[0])
    for key in path[1:]:
        value = value[key]
    return value
