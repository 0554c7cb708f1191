"""The slim network as a program: the recorded calls, with every size that follows the widths rewritten.

This is the reference form. It needs nothing of the user's code, so a size that the code fixes (`x.view(-1, 400)`), a
factor that it works out from a width and unequal parts all follow. A program is plain data (JSON); `surgery` makes an
`fx.GraphModule` of it. Sizes that depend on the batch are found by recording a second batch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from ..errors import ModelError
from .capture import Inputs, op_name, record
from .flow import Value
from .units import alive

if TYPE_CHECKING:
    from .dependency import DependencyGraph

# Methods that take the sizes of their result, and stand for these ops.
_SIZED = {
    "view": "view",
    "_unsafe_view": "reshape",
    "reshape": "reshape",
    "expand": "expand",
    "_reshape_alias": "reshape",
}
_NEW = {"new_zeros": "new_zeros", "new_ones": "new_ones", "new_empty": "new_empty", "new_full": "new_full"}
_CREATED = ("zeros", "ones", "empty", "full")
_SPLITS = (
    "chunk",
    "split",
    "split_with_sizes",
    "unsafe_chunk",
    "unsafe_split",
    "tensor_split",
    "unsafe_split_with_sizes",
)


def program(graph: DependencyGraph, removed: np.ndarray) -> dict[str, Any]:
    """The calls of the slim network. Raises ModelError for inputs that are nested in lists or dicts."""
    return _Writer(graph, removed).run()


class _Writer:
    def __init__(self, graph: DependencyGraph, removed: np.ndarray) -> None:
        self.graph, self.removed = graph, removed
        self.nodes: list[dict[str, Any]] = []
        self.constants: dict[str, Tensor] = {}
        self.batch = _batch(graph.inputs)
        self.other = _other_batch(graph)  # the shapes that nodes have at one sample more
        self.first = ""

    def run(self) -> dict[str, Any]:
        names = _input_names(self.graph)
        tensors = iter(n for n, x in zip(names, self.graph.inputs.flat(), strict=True) if isinstance(x, Tensor))
        output: Any = None
        self.renamed: dict[str, str] = {}
        for node in self.graph.captured.graph.nodes:
            if node.op == "placeholder":
                key = self.graph.captured.parameters.get(node.name)
                if key is None:
                    self.renamed[node.name] = next(tensors)
                    self.first = self.first or self.renamed[node.name]
                elif node.users:
                    self.add(node.name, "get", key)
            elif node.op == "get_attr":
                self.add(node.name, "constant", self.constant(node))
            elif node.op == "output":
                output = self.encode(node.args[0])
            elif node.target is operator.getitem:
                self.add(node.name, "getitem", "", [self.encode(node.args[0]), node.args[1]])
            else:
                self.write(node)
        constants = {name: _as_data(tensor) for name, tensor in self.constants.items()}
        return {"inputs": names, "constants": constants, "nodes": self.nodes, "output": output}

    def add(self, name: str, kind: str, target: str, args: Any = (), kwargs: Any = None) -> dict[str, Any]:
        self.nodes.append({"name": name, "kind": kind, "target": target, "args": list(args), "kwargs": kwargs or {}})
        return {"$node": name}

    def constant(self, node: fx.Node) -> str:
        value = node.meta["val"]
        if value.device.type == "meta":
            raise ModelError(f"the graph form needs a constant of the model that was not recorded ({node.name})")
        self.constants[node.name] = value
        return node.name

    def write(self, node: fx.Node) -> None:
        name = op_name(node.target)
        args, kwargs = [self.encode(a) for a in node.args], {k: self.encode(v) for k, v in node.kwargs.items()}
        rewrite = _REWRITES.get(name)
        if rewrite is not None:
            rewritten = rewrite(self, node, args, kwargs)
            if rewritten is not None:
                self.add(node.name, *rewritten)
                return
        self.add(node.name, "op", str(node.target), args, kwargs)

    # --- sizes ----------------------------------------------------------------------------------------------

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

    def shape(self, node: fx.Node) -> list[Any]:
        """The slim shape of what a node makes; a size that depends on the batch as a reference to a node."""
        value: Value = self.value(node)
        now, then = list(value.shape), self.other.get(node.name)
        slim = [self.length(axis, size) for axis, size in zip(value.axes, now, strict=True)]
        if then is None:
            return slim
        return [self.affine(s, a, b, node.name, i) for i, (s, a, b) in enumerate(zip(slim, now, then, strict=True))]

    def affine(self, slim: int, now: int, then: int, name: str, place: int) -> Any:
        """A size that is `now` at the recorded batch and `then` at one more, in the slim network."""
        if now == then:
            return slim
        slope, rest = then - now, now - (then - now) * self.batch
        if slim != now:  # channels among the samples: in proportion to both
            if rest or slim % self.batch:
                raise ModelError(f"{name}: the graph form can't tell how its size {now} depends on the batch")
            slope = slim // self.batch
        count = self.add(f"{name}_batch_{place}", "method", "size", [{"$node": self.first}, 0])
        if slope != 1:
            count = self.add(f"{name}_batch_{place}_times", "mul", "", [count, slope])
        return self.add(f"{name}_batch_{place}_plus", "add", "", [count, rest]) if rest else count

    # --- plain data -----------------------------------------------------------------------------------------

    def encode(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return {"$node": self.renamed.get(value.name, value.name)}
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return value if np.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, (list, tuple)):
            items = [self.encode(item) for item in value]
            return {"$tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, dict):
            return {"$dict": {key: self.encode(item) for key, item in value.items()}}
        if isinstance(value, torch.device):
            return {"$device_of": self.first}
        for kind in (torch.dtype, torch.layout, torch.memory_format):
            if isinstance(value, kind):
                return {"$torch": str(value).removeprefix("torch.")}
        raise ModelError(f"the graph form can't hold a {type(value).__name__} ({value!r})")


def _as_data(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "values": tensor.tolist(), "shape": list(tensor.shape)}


Rewrite = Callable[[_Writer, fx.Node, list[Any], dict[str, Any]], "tuple[Any, ...] | None"]


def _sized(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    if len(args) < 2 or not isinstance(args[1], (list, dict)):  # view(dtype)
        return None
    return "method", _SIZED[op_name(node.target)], [args[0], *w.shape(node)]


def _unflatten(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return "method", "reshape", [args[0], *w.shape(node)]


def _new(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return "method", op_name(node.target), [args[0], w.shape(node), *args[2:]], _plain(kwargs)


def _created(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return "torch", op_name(node.target), [w.shape(node), *args[1:]], _plain(kwargs)


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key in ("dtype", "device") and value is not None}


def _split(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    source: Value = w.value(node.args[0])
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0) % len(source.shape)
    sizes = [w.length(part.axes[dim], part.shape[dim]) for part in w.value(node)]
    return None if source.axes[dim] is None else ("torch", "split", [args[0], sizes, dim])


def _slice(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    source: Value = w.value(node.args[0])
    dim = (args[1] if len(args) > 1 else 0) % len(source.shape)
    axis, size = source.axes[dim], source.shape[dim]
    if axis is None:
        return None
    given: list[Any] = [*node.args[2:], *[None] * (5 - len(node.args))]
    if op_name(node.target) == "narrow":
        given = [given[0], given[0] + given[1], 1]
    picked = range(size)[slice(*given[:2])]
    start, stop = (w.length(axis[:n], n) for n in (picked.start, picked.stop))
    return "op", "aten.slice.Tensor", [args[0], dim, start, stop]


def _conv(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    if len(args) < 7 or args[6] == 1:
        return None
    x, weight, made = w.value(node.args[0]), w.value(node.args[1]), w.value(node)
    channel = len(x.shape) - len(weight.shape) + 1
    whole = made if "transpose" in op_name(node.target) else x
    inner = w.width(node.args[1], 1)
    return "op", str(node.target), [*args[:6], w.length(whole.axes[channel], whole.shape[channel]) // inner, *args[7:]]


def _normed(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    x: Value = w.value(node.args[0])
    slim = [w.length(axis, size) for axis, size in zip(x.axes, x.shape, strict=True)]
    return "op", str(node.target), [args[0], slim[len(slim) - len(args[1]) :], *args[2:]], kwargs


def _attention(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    scale = kwargs.get("scale")
    width = w.value(node.args[0]).shape[-1]
    return "op", str(node.target), args, {**kwargs, "scale": width**-0.5 if scale is None else scale}


def _trains(place: int) -> Rewrite:
    def rewrite(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        if len(args) <= place or args[place] is not False:
            return None  # statistics of the batch, always
        return "op", str(node.target), [*args[:place], {"$training": True}, *args[place + 1 :]], kwargs

    return rewrite


_REWRITES: dict[str, Rewrite] = {
    **dict.fromkeys(_SIZED, _sized),
    **dict.fromkeys(_NEW, _new),
    **dict.fromkeys(_CREATED, _created),
    **dict.fromkeys(_SPLITS, _split),
    **dict.fromkeys(("slice", "narrow"), _slice),
    **{f"conv{kind}{n}d": _conv for kind in ("", "_transpose") for n in (1, 2, 3)},
    **dict.fromkeys(("layer_norm", "rms_norm"), _normed),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), _trains(2)),
    "unflatten": _unflatten,
    "scaled_dot_product_attention": _attention,
    "batch_norm": _trains(5),
}


def _batch(inputs: Inputs) -> int:
    return next((int(x.shape[0]) for x in inputs.flat() if isinstance(x, Tensor) and x.dim()), 1)


def _other_batch(graph: DependencyGraph) -> dict[str, list[int]]:
    """The shape of each node at one sample more; empty if the model runs at the recorded batch size only."""
    size = _batch(graph.inputs)

    def more(x: Tensor) -> Tensor:
        return x.new_empty((size + 1, *x.shape[1:]), device="meta") if x.dim() and x.shape[0] == size else x

    other, error = record(graph.model, graph.inputs.map(more))
    nodes = [n for n in graph.captured.graph.nodes if n.op == "call_function"]
    seen = other.calls
    if error is not None or [n.target for n in seen] != [n.target for n in nodes]:
        return {}
    return {
        n.name: list(o.meta["val"].shape) for n, o in zip(nodes, seen, strict=True) if isinstance(o.meta["val"], Tensor)
    }


def _input_names(graph: DependencyGraph) -> list[str]:
    values = [*graph.inputs.args, *graph.inputs.kwargs.values()]
    if any(isinstance(value, (list, tuple, dict)) for value in values):
        raise ModelError("the graph form takes tensors as arguments, not lists or dicts of them: wrap the model")
    return graph.inputs.names(graph.model)
