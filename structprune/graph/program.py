"""The slim network as a program: the recorded calls, with every size that follows widths or inputs rewritten.

This is the reference form. It needs nothing of the user's code, so a size that the code fixes (`x.view(-1, 400)`), a
factor that it works out from a width and unequal parts all follow. A program is plain data (JSON); `surgery` makes an
`fx.GraphModule` of it. Numbers that follow the batch, the image or a length are written as sums and products of sizes
(`laws`), proven on recordings at other sizes (`trials`). What may not change is checked when the program runs.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from ..errors import ModelError
from . import trials
from .answers import READERS, Answer
from .capture import op_name
from .computing import refused
from .flow import Value
from .laws import At, Known, Term, Wanted, places, root, solve, solve_real
from .noting import Condition
from .numbers import Number, Read, Real, Size, Source
from .rewrites import REWRITES
from .trials import Axis, Sizes
from .units import alive

if TYPE_CHECKING:
    from .dependency import DependencyGraph

_KINDS = {operator.pow: "pow", root: "root"}  # what they are called in a program, where that is not their own name


def program(graph: DependencyGraph, removed: np.ndarray) -> dict[str, Any]:
    """The calls of the slim network.

    Raises ModelError for inputs that are nested in lists or dicts, and for a batch that can't be followed.
    """
    names = _input_names(graph)
    sizes = graph.sizes
    while True:
        try:
            return Writer(graph, removed, sizes, names).run()
        except _Stuck as stuck:
            if any(axis.is_batch for axis in stuck.axes):
                raise ModelError(f"the graph form can't follow the batch here: {stuck.reason}") from None
            sizes = sizes.fixing(stuck.axes, stuck.reason)


class _Stuck(Exception):
    """A number that follows some axes of the inputs in a way that is not found."""

    def __init__(self, axes: set[Axis], reason: str) -> None:
        super().__init__(reason)
        self.axes, self.reason = axes, reason


class Writer:
    """Writes the program of one removal; `rewrites` call its methods."""

    def __init__(self, graph: DependencyGraph, removed: np.ndarray, sizes: Sizes, names: list[str]) -> None:
        self.graph, self.removed, self.sizes, self.names = graph, removed, sizes, names
        self.nodes: list[dict[str, Any]] = []
        self.constants: dict[str, Tensor] = {}
        self.renamed: dict[str, str] = {}
        self.written: dict[Term, str] = {}
        self.inputs: list[str] = []  # the tensors among the inputs, by the names of their nodes in the graph
        self.known = Known(self.recorded, self.slim)

    def run(self) -> dict[str, Any]:
        given = [n for n, x in zip(self.names, self.graph.inputs.flat(), strict=True) if isinstance(x, Tensor)]
        self.first = next((n for n, x in zip(given, self.tensors(), strict=True) if x.dim()), given[0] if given else "")
        entering = [n for n in self.graph.captured.graph.nodes if n.op == "placeholder"]
        self.inputs = [n.name for n in entering if n.name not in self.graph.captured.parameters]
        self.renamed.update(zip(self.inputs, given, strict=True))
        self.typical = self.of_the_dtype(given)
        self.guard(given)
        waiting = self.conditions()
        asked = {question.node: question.answer for question in self.graph.captured.asked}
        output: Any = None
        for node in self.graph.captured.graph.nodes:
            if node.op == "output":
                output = self.encode(node.args[0], node)
            elif node.op == "placeholder":
                key = self.graph.captured.parameters.get(node.name)
                if key is not None:
                    self.renamed[node.name] = f"p_{node.name}"  # apart from the names of inputs
                    if node.users:
                        self.add(f"p_{node.name}", "get", key)
            elif node.op == "get_attr":
                self.renamed[node.name] = f"c_{node.name}"
                self.add(f"c_{node.name}", "constant", self.constant(node))
            else:
                self.renamed[node.name] = f"n_{node.name}"
                if node.target is operator.getitem:
                    self.add(f"n_{node.name}", "getitem", "", [self.encode(node.args[0], node), node.args[1]])
                else:
                    if node.target not in READERS.values():
                        self.write(node)
                    if node in asked:
                        self.answered(node, asked[node])
            for test, outcome, message in waiting.pop(node.name, []):
                self.add(f"k_{len(self.nodes)}", "check", message, [self.term(test), outcome])
        constants = {name: _as_data(tensor) for name, tensor in self.constants.items()}
        return {"inputs": self.names, "constants": constants, "nodes": self.nodes, "output": output}

    def of_the_dtype(self, given: list[str]) -> str:
        """What has the model's dtype when the program runs: a parameter or else an input, by its name there."""
        if self.sizes.retyped is None:
            return ""
        for node in self.graph.captured.graph.nodes:
            key = self.graph.captured.parameters.get(node.name) if node.op == "placeholder" else None
            if key is not None and node.users and node.meta["val"].dtype == self.sizes.retyped.traced:
                return f"p_{node.name}"
        typed = [n for n, x in zip(given, self.tensors(), strict=True) if x.dtype == self.sizes.retyped.traced]
        return next(iter(typed), "")

    def tensors(self) -> list[Tensor]:
        return [x for x in self.graph.inputs.flat() if isinstance(x, Tensor)]

    def add(self, name: str, kind: str, target: str, args: Any = (), kwargs: Any = None) -> dict[str, Any]:
        self.nodes.append({"name": name, "kind": kind, "target": target, "args": list(args), "kwargs": kwargs or {}})
        return {"$node": name}

    def constant(self, node: fx.Node) -> str:
        value = node.meta["val"]
        if value.device.type == "meta":
            raise ModelError(f"the graph form needs a constant of the model that was not recorded ({node.name})")
        self.constants[node.name] = value
        return node.name

    def answered(self, node: fx.Node, answer: Answer) -> None:
        """A check, when the program runs, that what the model's code asked for here comes out as it was recorded."""
        question = answer.question
        if answer.dtypes:
            shapes = [list(shape) for shape in answer.shapes]
            self.add(f"g_{node.name}", "guard_sizes", question, [self.encode(node, node), shapes])
            return
        asked = node.args[0] if node.target in READERS.values() else node
        value = answer.value.tolist() if isinstance(answer.value, np.ndarray) else answer.value
        self.add(f"g_{node.name}", "guard", question, [self.encode(asked, node), self.encode(value, node)])

    def write(self, node: fx.Node) -> None:
        if isinstance(node.target, torch._ops.OpOverload) and op_name(node.target) not in REWRITES:
            why = refused(node.target)
            if why:
                where = f"{node.meta['module'] or 'forward'} ({node.meta['line']})"
                raise ModelError(f"the graph form can't hold {op_name(node.target)} in {where}, which {why}")
        args = [self.encode(a, node, ("args", i)) for i, a in enumerate(node.args)]
        kwargs = {k: self.encode(v, node, ("kwargs", k)) for k, v in node.kwargs.items()}
        rewrite = REWRITES.get(op_name(node.target))
        entry = (rewrite(self, node, args, kwargs) if rewrite is not None else None) or (
            "op",
            str(node.target),
            args,
            kwargs,
        )
        unsolved = next(_unsolved(entry[2:]), None)
        if unsolved is not None:
            raise self.stuck(node, unsolved)
        self.add(f"n_{node.name}", *entry)

    def stuck(self, node: fx.Node, numbers: tuple[int, ...]) -> _Stuck:
        axes = self.sizes.moved_by([number != numbers[0] for number in numbers[1:]])
        now = f"{numbers[0]}, and {', '.join(map(str, sorted(set(numbers[1:]))))} at other sizes"
        where = f"{node.meta['module'] or 'forward'} ({node.meta['line']})"
        return _Stuck(axes, f"{op_name(node.target)} in {where} gets {now}")

    # --- what the program checks ------------------------------------------------------------------------------

    def guard(self, given: list[str]) -> None:
        """Checks what no trial has shown to be free: the number of axes of each input, and the sizes of some."""
        fixed = {member for axis in self.sizes.fixed for member in axis.members}
        for place, (name, tensor) in enumerate(zip(given, self.tensors(), strict=True)):
            wanted = [int(size) if (place, dim) in fixed else None for dim, size in enumerate(tensor.shape)]
            self.add(f"k_{name}", "takes", name, [{"$node": name}, wanted])

    def conditions(self) -> dict[str, list[tuple[Term, bool, str]]]:
        """The comparisons that steer the model's code and follow the inputs, by the node after which all is known."""
        order = {node.name: i for i, node in enumerate(self.graph.captured.graph.nodes)}
        waiting: dict[str, list[tuple[Term, bool, str]]] = {}
        seen = set()
        for i, condition in enumerate(trials.conditions_of(self.graph.captured)):
            sides = [
                self.compared(condition, place, [trial.compared[i][place] for trial in self.sizes.trials])
                for place in (0, 1)
            ]
            test = (condition.test[0], *sides)
            moving = places(test)
            if moving and test not in seen:
                seen.add(test)
                last = max(moving, key=lambda at: order[at.node]).node
                waiting.setdefault(last, []).append((test, condition.outcome, condition.line.rpartition("/")[2]))
        return waiting

    def compared(self, condition: Condition, place: int, others: list[Any]) -> Term:
        """One side of a comparison: a number, or a term that gives it at every recorded size."""
        expression = condition.test[1 + place]
        own, now = self.expression(expression), trials.side(expression, self.graph.model)
        if own is not None:
            own = self.of_inputs(own)
        if not places(own) and all(other == now for other in others):
            return now
        where = f"{condition.module or 'forward'} ({condition.line})"
        if now is None or any(other is None for other in others):
            raise _Stuck(set(self.sizes.free), f"a comparison in {where} is of numbers that are not known")
        recorded = (now, *others)
        near = [At(name, dim) for name in self.inputs for dim in range(len(self.graph.values[name].shape))]
        term = solve(Wanted(recorded, recorded[0]), own, [*places(own), *near], self.known)
        if term is None:
            axes = self.sizes.moved_by([number != recorded[0] for number in recorded[1:]])
            raise _Stuck(axes or set(self.sizes.free), f"a comparison in {where} follows it in a way that is not found")
        return term

    def of_inputs(self, term: Term) -> Term:
        """A term in which sizes that do not follow the inputs are numbers: the dense ones, as the code knows them."""
        if isinstance(term, At):
            return term if len(set(self.recorded(term))) > 1 else self.recorded(term)[0]
        return (term[0], self.of_inputs(term[1]), self.of_inputs(term[2])) if isinstance(term, tuple) else term

    # --- sizes ------------------------------------------------------------------------------------------------

    def value(self, node: Any) -> Any:
        return self.graph.values[node.name]

    def length(self, axis: np.ndarray | None, size: int) -> int:
        return size if axis is None or not len(axis) else int(alive(self.graph.classes_of(axis), self.removed).sum())

    def width(self, node: Any, dim: int) -> int:
        """The slim length of an axis; of a grouped convolution's weight, of one block."""
        value: Value = self.value(node)
        axis = self.graph.blocked(value.key, dim)
        if axis is not None:
            return self.length(axis, len(axis)) * value.shape[dim] // len(axis)
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
        while len(last) < RECENT and (last[-1] if last else node).prev.op == "call_function":
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
        wanted = Wanted((int(number), *map(int, others)), slim)
        term = solve(wanted, own, self.near(node), self.known)
        if term is None and all(other == number for other in others):
            return slim
        return Unsolved(wanted.recorded) if term is None else self.term(term)

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
            wanted = Wanted((float(number), *others), float(number))
            return self.term(own) if self.known.fits(own, wanted) else Unsolved(wanted.recorded)
        if all(other == number for other in others):
            return float(number)
        term = solve_real((float(number), *others), self.near(node), self.known)
        return Unsolved((float(number), *others)) if term is None else self.term(term)

    def shape(self, node: fx.Node, asked: Any = None) -> list[Any]:
        """The slim shape of what a node makes. `asked` is what the code gave, whose -1 stay as they are."""
        made: Value = self.value(node)
        shapes = [trial.nodes[node.name].meta["val"].shape for trial in self.sizes.trials]
        result: list[Any] = []
        for dim, (size, axis) in enumerate(zip(made.shape, made.axes, strict=True)):
            if asked is not None and dim < len(asked) and isinstance(asked[dim], int) and asked[dim] == -1:
                result.append(-1)
                continue
            own = asked[dim] if asked is not None and dim < len(asked) and isinstance(asked[dim], Number) else size
            own = own if int(own) == size else size
            result.append(self.number(node, own, [int(s[dim]) for s in shapes], self.length(axis, size)))
        return result

    def term(self, term: Term) -> Any:
        """Writes a term; what is written once is not written again."""
        if not isinstance(term, tuple):
            return term
        if term not in self.written:
            if isinstance(term, At):
                name = f"s_{self.renamed[term.node]}_{term.dim}"
                self.add(name, "method", "size", [{"$node": self.renamed[term.node]}, term.dim])
            else:
                function, left, right = term
                args = [self.term(left), self.term(right)]
                name = f"t_{len(self.nodes)}"
                self.add(name, _KINDS.get(function, function.__name__), "", args)
            self.written[term] = name
        return {"$node": self.written[term]}

    # --- plain data -------------------------------------------------------------------------------------------

    def encode(self, value: Any, node: fx.Node, path: tuple[Any, ...] = ()) -> Any:
        """An argument of a call as plain data; `path` says where it is, to find its like in the trials."""
        if isinstance(value, fx.Node):
            return {"$node": self.renamed.get(value.name, value.name)}
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, int):
            others = self.others(node, *path) if path else []
            return self.number(node, value, others)
        if isinstance(value, float):
            limit = self.limit(node, value, path)
            if limit is None and path and np.isfinite(value):
                return self.real(node, value, path)
            return limit or (float(value) if np.isfinite(value) else {"$float": repr(float(value))})
        if isinstance(value, (list, tuple)):
            items = [self.encode(item, node, (*path, i) if path else ()) for i, item in enumerate(value)]
            return {"$tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, dict):
            return {"$dict": {k: self.encode(v, node, (*path, k) if path else ()) for k, v in value.items()}}
        if isinstance(value, torch.device):
            return {"$device_of": self.first}
        if isinstance(value, torch.dtype) and self.typed(node, value, path):
            return {"$dtype_of": self.typical}
        for kind in (torch.dtype, torch.layout, torch.memory_format):
            if isinstance(value, kind):
                return {"$torch": str(value).removeprefix("torch.")}
        raise ModelError(f"the graph form can't hold a {type(value).__name__} ({value!r})")

    def typed(self, node: fx.Node, dtype: torch.dtype, path: tuple[Any, ...]) -> bool:
        """Whether a dtype among a call's arguments is that of the model, whatever that is."""
        retyped = self.sizes.retyped
        if retyped is None or not path or not self.typical or dtype != retyped.traced:
            return False
        return found_at(retyped.nodes[node.name], path) == retyped.other

    def limit(self, node: fx.Node, number: float, path: tuple[Any, ...]) -> dict[str, list[str]] | None:
        """How a number is written that is a limit of the model's dtype (`torch.finfo(x.dtype).min`), whatever it is."""
        retyped = self.sizes.retyped
        if retyped is None or not path or not self.typical:
            return None
        other = found_at(retyped.nodes[node.name], path)
        limits = [torch.finfo(dtype) for dtype in (retyped.traced, retyped.other)]
        pairs = {name: tuple(getattr(limit, name) for limit in limits) for name in LIMITS}
        return next(({"$limit": [name, self.typical]} for name, pair in pairs.items() if pair == (number, other)), None)


RECENT = 4  # how many calls before another one are looked at for what its numbers follow
LIMITS = ("min", "max", "eps", "tiny")


class Unsolved(tuple):
    """A number that changes with the inputs in a way that is not found: what it is at each recorded size."""


def _unsolved(value: Any) -> Any:
    if isinstance(value, Unsolved):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _unsolved(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _unsolved(item)


def found_at(node: fx.Node, path: tuple[Any, ...]) -> Any:
    """The argument of a call at a path: ("args", 1, 0)."""
    found: Any = getattr(node, path[0])
    for key in path[1:]:
        found = found[key]
    return found


def _as_data(tensor: Tensor) -> dict[str, Any]:
    """A constant as plain data: complex numbers as pairs, numbers that JSON lacks as text."""
    parts = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    values = parts.tolist()
    if tensor.dtype.is_floating_point and not bool(torch.isfinite(tensor).all()):
        values = _as_text(values)
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "values": values, "shape": list(tensor.shape)}


def _as_text(values: Any) -> Any:
    if isinstance(values, list):
        return [_as_text(value) for value in values]
    return values if np.isfinite(values) else repr(values)


def _input_names(graph: DependencyGraph) -> list[str]:
    values = [*graph.inputs.args, *graph.inputs.kwargs.values()]
    if any(isinstance(value, (list, tuple, dict)) for value in values):
        raise ModelError("the graph form takes tensors as arguments, not lists or dicts of them: wrap the model")
    return graph.inputs.names(graph.model)
