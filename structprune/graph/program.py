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
from torch.utils import _pytree as pytree

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
        self.other = _other_batch(graph)  # the calls at one sample more, by the name of the node here
        self.first = ""

    def run(self) -> dict[str, Any]:
        names = _input_names(self.graph)
        given = [(n, x) for n, x in zip(names, self.graph.inputs.flat(), strict=True) if isinstance(x, Tensor)]
        self.first = next((n for n, x in given if x.dim()), given[0][0] if given else "")
        tensors = iter(n for n, _ in given)
        output: Any = None
        self.renamed: dict[str, str] = {}
        for node in self.graph.captured.graph.nodes:
            if node.op == "placeholder":
                key = self.graph.captured.parameters.get(node.name)
                if key is None:
                    self.renamed[node.name] = next(tensors)
                    continue
                self.renamed[node.name] = f"p_{node.name}"  # apart from the names of inputs
                if node.users:
                    self.add(f"p_{node.name}", "get", key)
            elif node.op == "get_attr":
                self.renamed[node.name] = f"c_{node.name}"
                self.add(f"c_{node.name}", "constant", self.constant(node))
            elif node.op == "output":
                output = self.encode(node.args[0])
            else:
                self.renamed[node.name] = f"n_{node.name}"
                if node.target is operator.getitem:
                    self.add(f"n_{node.name}", "getitem", "", [self.encode(node.args[0]), node.args[1]])
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
                self.add(f"n_{node.name}", *rewritten)
                return
        other = self.other.get(node.name)
        if other is not None and _ints(other) != _ints(node):
            raise ModelError(
                f"the graph form can't follow the batch here: {name} in {node.meta['module'] or 'forward'} "
                f"({node.meta['line']}) gets {_ints(node)} at batch {self.batch} and {_ints(other)} at {self.batch + 1}"
            )
        self.add(f"n_{node.name}", "op", str(node.target), args, kwargs)

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
        now, other = list(value.shape), self.other.get(node.name)
        slim = [self.length(axis, size) for axis, size in zip(value.axes, now, strict=True)]
        if other is None:
            return slim
        then = list(other.meta["val"].shape)
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
        name = f"b_{name}"
        count = self.add(f"{name}_batch_{place}", "method", "size", [{"$node": self.first}, 0])
        if slope != 1:
            name = f"b_{name}"
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
    if len(node.args) < 2 or not isinstance(node.args[1], (list, tuple)):  # view(dtype)
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
    if any(isinstance(bound, fx.Node) for bound in given) or (
        op_name(node.target) == "slice" and given[2] not in (None, 1)
    ):
        return None  # such an axis stays whole
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


def _repeat(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    other = w.other.get(node.name)
    if other is None:
        return None
    now: Any = node.args[1]
    then: Any = other.args[1]
    pairs = enumerate(zip(now, then, strict=True))
    return "method", "repeat", [args[0], *(w.affine(a, a, b, node.name, i) for i, (a, b) in pairs)]


def _trains(place: int) -> Rewrite:
    def rewrite(w: _Writer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        if op_name(node.target) == "batch_norm" and args[3] is not None and args[6] == 0.0:
            raise ModelError(
                f"the graph form can't train {node.meta['module']}: BatchNorm with momentum=None counts in code"
            )
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
    "repeat": _repeat,
    "scaled_dot_product_attention": _attention,
    "batch_norm": _trains(5),
}


def _batch(inputs: Inputs) -> int:
    return next((int(x.shape[0]) for x in inputs.flat() if isinstance(x, Tensor) and x.dim()), 1)


def _other_batch(graph: DependencyGraph) -> dict[str, fx.Node]:
    """Each call at one sample more, by the name of the node here; empty if the model runs at one batch size only.

    Raises ModelError if sizes do not grow in a line with the batch.
    """
    here = graph.captured.calls
    runs = []
    for more in (1, 2):
        found, error = record(
            graph.model, graph.inputs.map(lambda x, more=more: _longer(x, _batch(graph.inputs), more))
        )
        if error is not None or [n.target for n in found.calls] != [n.target for n in here]:
            return {}
        runs.append(found.calls)
    for node, one, two in zip(here, *runs, strict=True):
        a, b, c = ([tuple(x.shape) for x in _tensors(n.meta["val"])] for n in (node, one, two))
        if any(z - y != y - x for p, q, r in zip(a, b, c, strict=True) for x, y, z in zip(p, q, r, strict=True)):
            raise ModelError(
                f"the graph form can't follow the batch: {node.name} ({node.meta['line']}) has the sizes {a}, {b} and "
                f"{c} at batch sizes one apart"
            )
    return {node.name: other for node, other in zip(here, runs[0], strict=True)}


def _longer(x: Tensor, batch: int, more: int) -> Tensor:
    return x.new_empty((batch + more, *x.shape[1:]), device="meta") if x.dim() and x.shape[0] == batch else x


def _tensors(value: Any) -> list[Tensor]:
    return [x for x in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(x, Tensor)]


def _ints(node: fx.Node) -> list[int]:
    leaves = pytree.tree_flatten((list(node.args), dict(node.kwargs)))[0]
    return [int(leaf) for leaf in leaves if isinstance(leaf, int)]


def _input_names(graph: DependencyGraph) -> list[str]:
    values = [*graph.inputs.args, *graph.inputs.kwargs.values()]
    if any(isinstance(value, (list, tuple, dict)) for value in values):
        raise ModelError("the graph form takes tensors as arguments, not lists or dicts of them: wrap the model")
    return graph.inputs.names(graph.model)
