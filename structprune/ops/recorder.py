"""Runs modules and sees every ATen op before autograd takes composite ones apart: `Recorder` notes them as FX nodes.

make_fx records the same nodes, but spends most of its time on fake tensors; here a bare mode records on plain meta
tensors, and numbers among the arguments keep the attribute that they came from (see `provenance`).
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import operator
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..modules import walk
from .answers import (
    READERS,
    Answer,
    Answers,
    Flip,
    Question,
    Scenario,
    answer_of,
    asks,
    flipped,
    of_shapes,
    without_masks,
)
from .conditions import Condition, noting
from .kernels import is_plain, quick
from .nested import leaves_of, map_leaves, noted, whole_lengths
from .op_mode import OpMode, op_name
from .provenance import Number, Read, Real, Size, leaves, plain, settled
from .slices import calls_of

_RUNS = itertools.count()
_OURS = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, os.path.dirname(__file__)))


class Watcher(OpMode):
    """Knows which module of a model runs, and which comparisons its code makes inside `with watcher:`."""

    def __init__(self, model: nn.Module, scenario: Scenario) -> None:
        super().__init__()
        self.scenario = scenario
        self.path = ""
        self._paths = {id(module): name for name, module in walk(model)}
        self.native = False
        self._stack: list[tuple[str, bool]] = []
        self._thread = threading.get_ident()  # the hooks are called for modules of all threads
        self.run = next(_RUNS)
        self.conditions: list[Condition] = []
        self.answers = Answers(scenario, self.run)

    def __enter__(self) -> Any:
        super().__enter__()
        self._open.enter_context(self._hooks())
        self._open.enter_context(noting(self._compared, lambda: self.path))
        self._open.enter_context(whole_lengths())
        return self

    def _compared(self, condition: Condition) -> bool:
        runs = {leaf.run for leaf in leaves(condition.test) if isinstance(leaf, (Size, Read))}
        if runs <= {self.run} or condition.test[0] not in (operator.eq, operator.ne):  # else a cache looks for its key
            self.conditions.append(dataclasses.replace(condition, after=self.last))
        return condition.outcome != (Flip(condition.line) in self.scenario.flips)

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        handles = [
            nn.modules.module.register_module_forward_pre_hook(self._step_in),
            nn.modules.module.register_module_forward_hook(self._step_out, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _step_in(self, module: nn.Module, _: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        self._stack.append((self.path, self.native))
        self.path = self._paths.get(id(module), self.path)
        self.native = type(module).__module__.startswith("torch.")

    def _step_out(self, *_: Any) -> None:
        if threading.get_ident() == self._thread:
            self.path, self.native = self._stack.pop()

    @property
    def last(self) -> str:
        """The name of the node that was recorded last."""
        return ""

    def node_name(self, tensor: Tensor) -> str | None:
        """The name of what made a tensor; None for one from elsewhere."""
        return ""

    def read(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Sizes as `Number`s, which remember the tensor that they are of."""
        tensor = args[0]
        name = self.node_name(tensor)
        if name is None or func in READERS:
            return NotImplemented
        with torch._C.DisableTorchFunction():
            shape, value = tensor.shape, func(*args, **kwargs)
        sizes = [Number.of(size, Size(name, dim, size, self.run)) for dim, size in enumerate(shape)]
        if isinstance(value, torch.Size):
            return torch.Size(sizes)
        if func in (Tensor.numel, Tensor.nelement):
            return math.prod(sizes)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        return sizes[dim] if isinstance(dim, int) else value

    def remembered(self, value: Any) -> Any:
        return self.answers.remembered(value)


class Recorder(Watcher):
    """Notes each op that runs inside `with recorder:` as a node of `graph`."""

    def __init__(self, model: nn.Module, scenario: Scenario) -> None:
        super().__init__(model, scenario)
        self.graph = fx.Graph()
        self._nodes: dict[int, fx.Node] = {}
        self._made: dict[Any, fx.Node] = {}
        self._kept: list[Any] = []  # keeps ids from being used again

    @property
    def last(self) -> str:
        return next(iter(reversed(self.graph.nodes))).name

    def node_name(self, tensor: Tensor) -> str | None:
        node = self._nodes.get(id(tensor)) or (self._made.get(_memory(tensor)) if type(tensor) is Tensor else None)
        return None if node is None else node.name

    def read(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensor = args[0]
        if func not in READERS or not (tensor.is_meta or self.scenario.answers is not None):
            return super().read(func, args, kwargs)
        answer = self.answers.next_(READERS[func].__name__, self.path, _line())
        self._note(READERS[func], (self.node_of(tensor),), {}, None, answer)
        return self.answers.remembered(copy.deepcopy(answer.value))

    def enter(self, name: str, tensor: Tensor) -> fx.Node:
        """A placeholder for a parameter, buffer or input."""
        node = self._named(self.graph.placeholder("".join(c if c.isalnum() else "_" for c in name)))
        node.meta["val"] = tensor
        self._know(tensor, node)
        return node

    def _named(self, node: fx.Node) -> fx.Node:
        if self.scenario.label:
            node.name = self.scenario.label + node.name
        return node

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The node that made `tensor`; a tensor made elsewhere becomes a constant."""
        if id(tensor) not in self._nodes:
            node = self._made.get(_memory(tensor))  # torch wraps what zeros_like and the like make anew
            if node is None:
                node = self._named(self.graph.create_node("get_attr", f"constant_{len(self._kept)}"))
                node.meta["val"] = tensor if tensor.is_meta else tensor.detach().clone()  # the code may write to it
            self._know(tensor, node)
        return self._nodes[id(tensor)]

    def _know(self, tensor: Tensor, node: fx.Node) -> None:
        self._nodes[id(tensor)] = node
        self._made.setdefault(_memory(tensor), node)
        self._kept.append(tensor)

    def indexed(self, tensor: Tensor, index: Any) -> tuple[Tensor, Any]:
        """Takes an index apart that has slices whose bounds follow a size: `x[:, :height]`, `mask[:-4]`.

        torch makes no slice of what takes all there is, and one at another size: of an image that was padded, say. And
        of a bound that counts from the end, it tells the op where that is, which is one number at one size.
        """
        name = self.node_name(tensor)
        parts = index if isinstance(index, tuple) else (index,)
        if name is None or not any(isinstance(part, slice) for part in parts):
            return tensor, index
        with torch._C.DisableTorchFunction():
            shape = tensor.shape
        sizes = [Number.of(size, Size(name, dim, size, self.run)) for dim, size in enumerate(shape)]
        calls, left = calls_of(parts, sizes) or ((), index)
        for op, numbers in calls:
            self.torch_call.arguments = ((tensor, *numbers), {})
            tensor = op(tensor, *map(plain, numbers))
        return tensor, left

    def _own(self, number: float) -> float:
        """A number as it is, but with plain numbers for what was read from tensors or kept from another recording."""
        if not isinstance(number, (Number, Real)):
            return number
        sources = leaves(number.expression)
        if any(isinstance(leaf, (Size, Read)) and leaf.run != self.run for leaf in sources):
            return settled(number)
        return settled(number, (Read,)) if any(isinstance(leaf, Read) for leaf in sources) else number

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if op.namespace == "profiler":  # the marks of record_function
            return op(*args, **kwargs)
        op, args = without_masks(op, args, self.call)
        arguments = [
            x for x in leaves_of(self.torch_call.arguments) if isinstance(x, (int, float)) and not isinstance(x, bool)
        ]
        numbers = any(isinstance(x, (Number, Real)) for x in arguments)
        call = noted((args, kwargs), self.node_of, [self._own(x) for x in arguments] if numbers else [])
        answer: Answer | None = None
        if asks(op) and (self.scenario.answers is not None or any(_are_meta(args))):
            answer = self.answers.next_(op_name(op), self.path, _line())
            result = of_shapes(answer) if answer.dtypes else answer.value
        else:
            result = self._run(op, args, kwargs)
            if any(result is x for x in args) and not op._schema.is_mutable:
                result = result.detach()  # `x.float()` where x is: another tensor than x if x were not
        self._note(op, call[0], call[1], result, answer, numbers)
        return result

    def _run(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return quick(op, args) if is_plain(op, args) else op(*args, **kwargs)
        except (RuntimeError, NotImplementedError):  # constants that the model made on the CPU, or moves there
            return op(*map_leaves(args, _to_meta), **map_leaves(kwargs, _to_meta))

    def _note(
        self, op: Any, args: Any, kwargs: Any, result: Any, answer: Answer | None = None, numbers: bool = False
    ) -> None:
        node = self._named(self.graph.call_function(op, args, kwargs))
        node.meta |= {"val": result, "module": self.path, "line": _line(), "native": self.native, "numbers": numbers}
        if answer is not None:
            self.answers.questions.append(Question(node, answer))
        if isinstance(result, Tensor):
            self._know(result, node)
        elif isinstance(result, (list, tuple)):
            for i, part in enumerate(result):
                if isinstance(part, Tensor):
                    item = self._named(self.graph.call_function(operator.getitem, (node, i)))
                    item.meta |= {"val": part, "module": self.path}
                    self._know(part, item)


class Listener(Watcher):
    """Notes what the code asks tensors for while a model runs on real ones: `heard`."""

    def __init__(self, model: nn.Module, scenario: Scenario) -> None:
        super().__init__(model, scenario)
        self.heard: list[Answer] = []

    def read(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func not in READERS:
            return super().read(func, args, kwargs)
        with torch._C.DisableTorchFunction():
            value = func(*args, **kwargs)
        return self._hear(READERS[func].__name__, copy.deepcopy(value))

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        op, args = without_masks(op, args, self.call)
        result = op(*args, **kwargs)
        return self._hear(op_name(op), result) if asks(op) else result

    def _hear(self, op: str, result: Any) -> Any:
        line = _line()
        result = flipped(result, line, self.scenario.flips)
        self.heard.append(answer_of(op, self.path, line, result))
        self.answers.position += 1
        return result


def _memory(tensor: Tensor) -> Any:
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride()


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def _are_meta(args: Any) -> Iterator[bool]:
    return (x.is_meta for x in leaves_of(args) if isinstance(x, Tensor))


def _line() -> str:
    """Where the model's own code is: the nearest frame outside torch and this package."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
