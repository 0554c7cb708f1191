"""Runs modules and sees every ATen op before autograd takes composite ones apart: `Recorder` notes them as FX nodes.

make_fx records the same nodes, but spends most of its time on fake tensors; here a bare mode records on plain meta
tensors, and numbers among the arguments keep the attribute that they came from (see `numbers`).
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..modules import plain_transformers, walk
from .numbers import Condition, Number, Size, leaves, noting, settled

_RUNS = itertools.count()
_OURS = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, os.path.dirname(__file__)))


class OpMode(SchemaCheckMode):
    """Calls `self.call(op, args, kwargs)` for each ATen op, composite ones whole.

    Such a mode lives at the pre-dispatch key, where torch admits only subclasses of three of its own modes.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the wrapper that keeps torch.compile out costs more than the call

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self.given = _Given(self)
        self._open = ExitStack()

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def read(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a torch function that reads something of a tensor gives, or NotImplemented for what it gives itself."""
        return NotImplemented

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C._DisablePythonDispatcher():
            return self.call(func, args, kwargs or {})

    def __enter__(self) -> Any:
        self._open.enter_context(plain_transformers())
        self._open.enter_context(enable_python_dispatcher())
        super().__enter__()
        self._open.callback(super().__exit__, None, None, None)
        self._open.enter_context(self.given)
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()


_SHAPE = Tensor.shape.__get__  # type: ignore[attr-defined]
SIZES = frozenset([_SHAPE, Tensor.size, Tensor.__len__, Tensor.numel, Tensor.nelement])
READS = SIZES


class _Given(TorchFunctionMode):
    """Keeps the arguments of the torch function that runs now."""

    def __init__(self, mode: OpMode) -> None:
        self.arguments: Any = ()
        self._mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS:
            value = self._mode.read(func, args, kwargs or {})
            if value is not NotImplemented:
                return value
        self.arguments = (args, kwargs)
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.arguments = ()


class Recorder(OpMode):
    """Notes each op that runs inside `with recorder:` as a node of `graph`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.path = ""
        self._paths = {id(module): name for name, module in walk(model)}
        self.native = False
        self._stack: list[tuple[str, bool]] = []
        self._nodes: dict[int, fx.Node] = {}
        self._made: dict[Any, fx.Node] = {}
        self._kept: list[Any] = []  # keeps ids from being used again
        self._run = next(_RUNS)
        self.conditions: list[Condition] = []

    def __enter__(self) -> Recorder:
        super().__enter__()
        self._open.enter_context(self._hooks())
        self._open.enter_context(noting(self.conditions.append, lambda: self.path))
        return self

    def read(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Sizes as `Number`s, which remember the tensor that they are of."""
        tensor = args[0]
        node = self._nodes.get(id(tensor)) or (self._made.get(_memory(tensor)) if type(tensor) is Tensor else None)
        if node is None:
            return NotImplemented
        with torch._C.DisableTorchFunction():
            shape, value = tensor.shape, func(*args, **kwargs)
        sizes = [Number.of(size, Size(node.name, dim, size, self._run)) for dim, size in enumerate(shape)]
        if isinstance(value, torch.Size):
            return torch.Size(sizes)
        if func in (Tensor.numel, Tensor.nelement):
            return math.prod(sizes)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        return sizes[dim] if isinstance(dim, int) else value

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
        self._stack.append((self.path, self.native))
        self.path = self._paths.get(id(module), self.path)
        self.native = type(module).__module__.startswith("torch.")

    def _step_out(self, *_: Any) -> None:
        self.path, self.native = self._stack.pop()

    def enter(self, name: str, tensor: Tensor) -> fx.Node:
        """A placeholder for a parameter, buffer or input."""
        node = self.graph.placeholder("".join(c if c.isalnum() else "_" for c in name))
        node.meta["val"] = tensor
        self._know(tensor, node)
        return node

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The node that made `tensor`; a tensor made elsewhere becomes a constant."""
        if id(tensor) not in self._nodes:
            node = self._made.get(_memory(tensor))  # torch wraps what zeros_like and the like make anew
            if node is None:
                node = self.graph.create_node("get_attr", f"constant_{len(self._kept)}")
                node.meta["val"] = tensor if tensor.is_meta else tensor.detach().clone()  # the code may write to it
            self._know(tensor, node)
        return self._nodes[id(tensor)]

    def _know(self, tensor: Tensor, node: fx.Node) -> None:
        self._nodes[id(tensor)] = node
        self._made.setdefault(_memory(tensor), node)
        self._kept.append(tensor)

    def _own(self, number: int) -> int:
        """A number as it is, or a plain one if it was kept from another recording."""
        other = isinstance(number, Number) and any(
            isinstance(leaf, Size) and leaf.run != self._run for leaf in leaves(number.expression)
        )
        return settled(number) if other else number

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if op.namespace == "profiler":  # the marks of record_function
            return op(*args, **kwargs)
        given = [x for x in leaves_of(self.given.arguments) if isinstance(x, int) and not isinstance(x, bool)]
        numbers = any(isinstance(x, Number) for x in given)
        noted = _map((args, kwargs), self.node_of, [self._own(x) for x in given] if numbers else [])
        try:
            result = _quick(op, args) if _is_plain(op, args) else op(*args, **kwargs)
        except (RuntimeError, NotImplementedError):  # constants that the model made on the CPU
            result = op(*_map(args, _to_meta, []), **_map(kwargs, _to_meta, []))
        node = self.graph.call_function(op, *noted)
        node.meta |= {"val": result, "module": self.path, "line": _line(), "native": self.native, "numbers": numbers}
        if isinstance(result, Tensor):
            self._know(result, node)
        elif isinstance(result, (list, tuple)):
            for i, part in enumerate(result):
                if isinstance(part, Tensor):
                    item = self.graph.call_function(operator.getitem, (node, i))
                    item.meta |= {"val": part, "module": self.path}
                    self._know(part, item)
        return result


def _is_plain(op: Any, args: tuple[Any, ...]) -> bool:
    """Whether this is one of the frequent ops whose meta kernels are Python and take up to two milliseconds, in a
    form that plainly runs."""
    if op in _UNARY:
        return args[0].is_meta and args[0].is_floating_point()
    if op is _ATEN.linear.default:
        x, weight = args[:2]
        bias = args[2] if len(args) > 2 else None
        given = [x, weight] if bias is None else [x, weight, bias]
        plain = all(t.is_meta and t.dtype == x.dtype and t.is_floating_point() for t in given)
        fits = x.dim() > 1 and weight.dim() == 2 and x.shape[-1] == weight.shape[1]
        return plain and fits and (bias is None or bias.shape == weight.shape[:1])
    if op is _ATEN.lstm.input and len(args) == 9:
        x, (hidden, cell), weights = args[0], args[1], args[2]
        known = x.dim() == 3 and all(t.is_meta and t.dtype == x.dtype for t in (x, hidden, cell, *weights))
        samples = x.shape[0 if args[8] else 1] if known else 0
        fits = known and samples == hidden.shape[1] == cell.shape[1]
        return fits and weights[0].shape == (4 * cell.shape[-1], x.shape[-1])
    if op is _ATEN.batch_norm.default:
        return all(t is None or (t.dim() == 1 and t.shape[0] == args[0].shape[1]) for t in args[1:5])
    if op is _ATEN.layer_norm.default:
        inner = args[0].shape[args[0].dim() - len(args[1]) :]
        return tuple(args[1]) == inner and all(t is None or t.shape == inner for t in args[2:4])
    if op in _BINARY:
        a, b = args[0], args[1]
        return isinstance(b, Tensor) and a.is_meta and b.is_meta and a.shape == b.shape and a.dtype == b.dtype
    return False


def _quick(op: Any, args: tuple[Any, ...]) -> Tensor | tuple[Tensor, ...]:
    """What such an op makes, laid out as the op lays it out."""
    x = args[0]
    if op in _UNARY:
        return x if op._schema.is_mutable else torch.empty_like(x)
    if op in _BINARY:
        return torch.empty_like(x)
    if op is _ATEN.linear.default:
        return x.new_empty([*x.shape[:-1], args[1].shape[0]])
    if op is _ATEN.lstm.input:  # torch's own takes it apart step by step
        hidden, cell = args[1]
        directions = 2 if args[7] else 1
        return (
            x.new_empty([*x.shape[:2], directions * hidden.shape[-1]]),
            torch.empty_like(hidden),
            torch.empty_like(cell),
        )
    layout = torch.contiguous_format
    if op is _ATEN.batch_norm.default:
        for rank, candidate in ((4, torch.channels_last), (5, torch.channels_last_3d)):
            if x.dim() == rank and x.is_contiguous(memory_format=candidate):
                layout = candidate
    return torch.empty_like(x, memory_format=layout)


_ATEN = torch.ops.aten
_BINARY = frozenset([_ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor])
_UNARY = frozenset(
    getattr(_ATEN, name).default for name in ("hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "gelu")
)


def _memory(tensor: Tensor) -> Any:
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride()


def _to_meta(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def leaves_of(value: Any) -> Iterator[Any]:
    """What lies in nested lists, tuples, dicts and slices; pytree's own way takes several times as long."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves_of(item)
    elif isinstance(value, dict):
        yield from leaves_of(tuple(value.values()))
    elif isinstance(value, slice):
        yield from (value.start, value.stop, value.step)
    else:
        yield value


def map_leaves(value: Any, function: Any) -> Any:
    """`value` with `function` applied to what lies in its nested lists, tuples and dicts."""
    if isinstance(value, (list, tuple)):
        items = [map_leaves(item, function) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, dict):
        return {key: map_leaves(item, function) for key, item in value.items()}
    return function(value)


def _map(value: Any, tensor: Any, given: list[int]) -> Any:
    """`value` with `tensor` applied to tensors, and each int replaced by the next equal one of `given`, in order.

    An op gets the numbers of the torch function that calls it, so these tell which of them are `Number`s.
    """
    if isinstance(value, Tensor):
        return tensor(value)
    if isinstance(value, (list, tuple)):
        return type(value)([_map(item, tensor, given) for item in value]) if value else value
    if isinstance(value, dict):
        return {key: _map(item, tensor, given) for key, item in value.items()}
    if given and type(value) is int and value in given:
        position = given.index(value)
        number = given[position]
        del given[: position + 1]
        return number
    return value


def _line() -> str:
    """Where the model's own code is: the nearest frame outside torch and this package."""
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
