"""The slim network as a program: the recorded calls, with every size that follows widths or inputs rewritten.

This is the reference form. It needs nothing of the user's code, so a size that the code fixes (`x.view(-1, 400)`), a
factor that it works out from a width and unequal parts all follow. A program is plain data (JSON); `surgery` makes an
`fx.GraphModule` of it. Numbers that follow the batch, the image or a length are written as sums and products of sizes
(`laws`), proven on recordings at other sizes (`trials`). What may not change is checked when the program runs.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ..errors import ModelError
from ..ops import op_name
from ..ops.answers import Answer
from ..ops.laws import At, Term, places, root
from ..ops.record import record_of
from ..plan_schema import Call, Constant
from ..plan_schema import Program as Calls
from . import trials
from .channels import ChannelGraph
from .number_formulas import Follower, StuckError, Unsolved, found_at
from .permitted_ops import refusal
from .removal import Kept, mark_removed
from .trials import Sizes

_KINDS = {operator.pow: "pow", root: "root"}  # what they are called in a program, where that is not their own name


@dataclass(frozen=True)
class Program:
    """The calls of a slim network as plain data, and what a user should know of the sizes that they take."""

    calls: Calls
    notes: tuple[str, ...] = ()


def write_program(graph: ChannelGraph, kept: Kept) -> Program:
    """The slim network after a removal; under "paths" the other ways that it goes at other batch sizes.

    Raises ModelError for inputs that are nested in lists or dicts, and for a batch that can't be followed.
    """
    removed = mark_removed(graph, kept)
    program = _written(graph, removed)
    if graph.paths:
        program.calls["paths"] = [_written(path, removed, at_any_batch=False).calls for path in graph.paths]
    return program


def _written(graph: ChannelGraph, removed: np.ndarray, at_any_batch: bool = True) -> Program:
    names = _input_names(graph)
    sizes = graph.sizes
    while True:
        try:
            calls = Writer(graph, removed, sizes, names).run()
            entering = [n for n, x in zip(names, graph.inputs.flat(), strict=True) if isinstance(x, Tensor)]
            return Program(calls, tuple(sizes.notes(entering)) if at_any_batch else ())
        except StuckError as stuck:
            if at_any_batch and any(axis.is_batch for axis in stuck.axes):
                raise ModelError(f"the graph form can't follow the batch here: {stuck.reason}") from None
            sizes = sizes.fixing(stuck.axes, stuck.reason)


class Writer(Follower):
    """Writes the program of one removal; `rewrites` call its methods."""

    def __init__(self, graph: ChannelGraph, removed: np.ndarray, sizes: Sizes, names: list[str]) -> None:
        super().__init__(graph, removed, sizes)
        self.names = names
        self.nodes: list[Call] = []
        self.constants: dict[str, Tensor] = {}
        self.renamed: dict[str, str] = {}
        self.written: dict[Term, str] = {}

    def run(self) -> Calls:
        names = [n for n, x in zip(self.names, self.graph.inputs.flat(), strict=True) if isinstance(x, Tensor)]
        self.first = next((n for n, x in zip(names, self.tensors(), strict=True) if x.dim()), names[0] if names else "")
        self.renamed.update(zip(self.inputs, names, strict=True))
        self.typical = self.of_the_dtype(names)
        self.guard(names)
        waiting = self.conditions()
        answers = {question.node: question.answer for question in self.graph.recording.questions}
        output: Any = None
        for node in self.graph.recording.graph.nodes:
            if node.op == "output":
                output = self.encode(node.args[0], node)
            elif node.op == "placeholder":
                key = self.graph.recording.parameters.get(node.name)
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
                    if node not in answers or answers[node].dtypes:
                        self.write(node)
                    if node in answers:
                        self.answered(node, answers[node])
            for test, outcome, message in waiting.pop(node.name, []):
                self.add(f"k_{len(self.nodes)}", "check", message, [self.term(test), outcome])
        constants = {name: _as_data(tensor) for name, tensor in self.constants.items()}
        return {"inputs": self.names, "constants": constants, "nodes": self.nodes, "output": output}

    def of_the_dtype(self, names: list[str]) -> str:
        """What has the model's dtype when the program runs: a parameter or else an input, by its name there."""
        if self.sizes.retyped is None:
            return ""
        for node in self.graph.recording.graph.nodes:
            key = self.graph.recording.parameters.get(node.name) if node.op == "placeholder" else None
            if key is not None and node.users and node.meta["val"].dtype == self.sizes.retyped.traced:
                return f"p_{node.name}"
        typed = [n for n, x in zip(names, self.tensors(), strict=True) if x.dtype == self.sizes.retyped.traced]
        return next(iter(typed), "")

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
        value = answer.value.tolist() if isinstance(answer.value, np.ndarray) else answer.value
        args = [self.encode(argument, node) for argument in node.args]
        self.add(f"g_{node.name}", "guard", question, [answer.op, self.encode(value, node), *args])

    def write(self, node: fx.Node) -> None:
        rewrite = record_of(op_name(node.target)).rewrite
        if isinstance(node.target, torch._ops.OpOverload) and rewrite is None:
            why = refusal(node.target)
            if why:
                where = f"{node.meta['module'] or 'forward'} ({node.meta['line']})"
                raise ModelError(f"the graph form can't hold {op_name(node.target)} in {where}, which {why}")
        args = [self.encode(a, node, ("args", i)) for i, a in enumerate(node.args)]
        kwargs = {k: self.encode(v, node, ("kwargs", k)) for k, v in node.kwargs.items()}
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

    # --- what the program checks ------------------------------------------------------------------------------

    def guard(self, names: list[str]) -> None:
        """Checks what no trial has shown to be free: the number of axes of each input, and the sizes of some."""
        fixed = {member for axis in self.sizes.fixed for member in axis.members}
        for place, (name, tensor) in enumerate(zip(names, self.tensors(), strict=True)):
            sizes = [int(size) if (place, dim) in fixed else None for dim, size in enumerate(tensor.shape)]
            self.add(f"k_{name}", "takes", name, [{"$node": name}, sizes])

    def conditions(self) -> dict[str, list[tuple[Term, bool, str]]]:
        """The comparisons that steer the model's code and follow the inputs, by the node after which all is known."""
        order = {node.name: i for i, node in enumerate(self.graph.recording.graph.nodes)}
        waiting: dict[str, list[tuple[Term, bool, str]]] = {}
        tests = set()
        for i, condition in enumerate(trials.conditions_of(self.graph.recording)):
            sides = [
                self.compared(condition, place, [trial.compared[i][place] for trial in self.sizes.trials])
                for place in (0, 1)
            ]
            test = (condition.test[0], *sides)
            moving = places(test)
            if moving and test not in tests:
                tests.add(test)
                last = max(moving, key=lambda at: order[at.node]).node
                waiting.setdefault(last, []).append((test, condition.outcome, condition.line.rpartition("/")[2]))
        return waiting

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


LIMITS = ("min", "max", "eps", "tiny")


def _unsolved(value: Any) -> Any:
    if isinstance(value, Unsolved):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _unsolved(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _unsolved(item)


def _as_data(tensor: Tensor) -> Constant:
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


def _input_names(graph: ChannelGraph) -> list[str]:
    values = [*graph.inputs.args, *graph.inputs.kwargs.values()]
    if any(isinstance(value, (list, tuple, dict)) for value in values):
        raise ModelError("the graph form takes tensors as arguments, not lists or dicts of them: wrap the model")
    return graph.inputs.names(graph.model)
