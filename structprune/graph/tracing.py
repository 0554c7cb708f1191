"""Walks a captured graph with the op rules, and finds the dependency graph of a model."""

from __future__ import annotations

import gc
import operator
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import Tensor, fx, nn

from ..errors import ModelError
from ..messages import shown
from ..modules import walk
from ..ops import Captured, Inputs, map_leaves, op_name
from ..ops.answers import short_line
from ..ops.conditions import Condition
from ..ops.provenance import Size, Source, followed, leaves, settled
from ..ops.record import record_of
from ..typing import Form
from ..wrappers import unwrapped
from .axes import read_only
from .building import build_graph
from .constants import with_constants
from .dependency import DependencyGraph
from .flow import Flow, Unsupported
from .recordings import Recordings, record_passes
from .rules.recurrent import of_stacked
from .sizes_in_code import Bar, Bars, unfollowed
from .units import Cause
from .values import Stacked, Value, all_axes, fixed
from .width_conditions import kept_widths, restrict
from .writes import Writes, unknown

FORMS = ("module", "graph")
OUTPUT = "the network's output"  # why a layer's channels stay, in DependencyGraph.whole_layers


def trace(model: nn.Module, example_inputs: Any, form: Form = "module") -> DependencyGraph:
    """Finds the groups of coupled channels of a network, and what keeps the other channels.

    One forward pass is recorded in evaluation mode, on meta copies of the inputs: nothing is computed, unless the code
    asks for values. Then a copy runs once on the inputs as they are, and the graph's `notes` say what was decided by
    them. Code that runs only in training mode is recorded too, and its parameters are cut with the rest.

    Args:
        model: the network.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments. MACs are those of one pass on
            them, so give a batch of 1 for MACs a sample.
        form: what the slim network will be: "module", the user's own module, where channels that its code can't follow
            stay; or "graph", an `fx.GraphModule` with the same state_dict keys, in which every size is rewritten.

    Returns:
        The graph of groups and barriers, which `score` and `plan` take.

    Raises:
        ModelError: the model can't run on the inputs, or there is no such form.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
        >>> x = torch.randn(1, 3, 16, 16)
        >>> graph = sp.trace(model, x)
        >>> [(group.name, group.units) for group in graph.groups]
        [('0', 8), ('2', 8)]
    """
    if form not in FORMS:
        raise ModelError(f"form={shown(form)}: the slim network can have the form {' or '.join(map(repr, FORMS))}")
    model = unwrapped(model)
    inputs = Inputs.of(example_inputs).beside(model)
    with _no_garbage_collection():
        recordings = record_passes(model, inputs, form)
        barred: Bars = {}
        while True:
            graph, values = analyse(model, recordings, barred, form)
            bars: Bars = {}
            for captured in recordings.all if form == "module" else ():
                bars = bars or _unfollowed(graph, captured, values, barred, recordings)
            if not bars:
                return graph
            barred.update(bars)


def _unfollowed(
    graph: DependencyGraph, captured: Captured, values: dict[str, Any], barred: Bars, recordings: Recordings
) -> Bars:
    try:
        return unfollowed(graph, captured, values, barred)
    except ModelError as error:
        if captured is recordings.main or recordings.unseen:
            raise
        recordings.unseen = str(error)  # a pass that is not the same twice can't be held against the widths
        return {"": Bar(recordings.unseen)}


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Tracing makes many small objects that stay; a full collection on the way takes longer than a small network."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def analyse(
    model: nn.Module, recordings: Recordings, barred: Bars, form: Form = "module"
) -> tuple[DependencyGraph, dict[str, Any]]:
    """Applies the rules to each node in turn; channels that enter a node in `barred` stay, for the reason given there.

    Costs and statistics are those of `recordings.main`; the other passes tie and keep channels of the same parameters.
    Returns the graph and, for each node of each pass, its Value (or list of them), by the node's name.
    """
    flow = Flow(module_form=form == "module")
    parameters: dict[str, Value] = {}
    variances = recordings.variances()
    values = _walk(flow, recordings.main, parameters, variances, barred)
    own = dict(values)
    for captured in recordings.others:
        kept = flow.costs, flow.statistics, flow.produced
        flow.costs, flow.statistics, flow.produced = [], [], []
        values |= _walk(flow, captured, parameters, variances, barred)
        known = {(produced.key, produced.dim) for produced in kept[2]}
        new = [produced for produced in flow.produced if (produced.key, produced.dim) not in known]
        flow.costs, flow.statistics, flow.produced = kept[0], kept[1], kept[2] + new
    for path, module in walk(model):
        key = f"{path}.weight".lstrip(".")
        if isinstance(module, nn.Embedding) and key in parameters:  # also where forward uses the weight as it is
            flow.attribute(parameters[key], "embedding_dim", parameters[key].axes[1])
            flow.attribute(parameters[key], "num_embeddings", parameters[key].axes[0])
    _keep_compared(flow, barred, values)
    if flow.module_form and (recordings.unseen or recordings.unknown):
        _keep_unseen(flow, recordings, parameters, values)
    for axis in (axis for value in values.values() for axis in all_axes(value)):
        if axis is not None:
            read_only(axis)
    compared = [key for key in barred if isinstance(key, Condition)]
    graph = restrict(build_graph(model, form, flow, parameters, recordings.main, own), compared, values)
    others = recordings.others if form == "graph" else ()
    return replace(
        graph,
        notes=(*recordings.notes, *dict.fromkeys(f"{_place(c)}: {kept_widths(c)}" for c in compared)),
        paths=tuple(replace(graph, recording=path, values=MappingProxyType(values)) for path in others),
    ), values


def _walk(
    flow: Flow, captured: Captured, parameters: dict[str, Value], variances: set[str], barred: Bars
) -> dict[str, Any]:
    """The values of one pass by the names of its nodes; `parameters` are those of all passes by key."""
    values: dict[fx.Node, Any] = {}
    depth: dict[fx.Node, int] = {}
    calls: Counter[str] = Counter()
    written = _written(captured)
    writes = Writes()
    flow.results = {}
    for node in captured.graph.nodes:
        depth[node] = 1 + max((depth[parent] for parent in node.all_input_nodes), default=0)
        if node.op == "placeholder":
            values[node] = _enter(flow, node, captured, parameters, variances)
        elif node.op == "get_attr":
            values[node] = Value.fixed(getattr(node.meta.get("val"), "shape", ()))
        elif node.op == "output":
            output = Cause("output", node.name, "", OUTPUT, barrier=False)
            for axis in (axis for leaf in node.all_input_nodes for axis in all_axes(values[leaf])):
                if axis is not None:
                    flow.units.freeze(axis, output)
        elif node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        else:
            flow.depth, flow.module, flow.line = depth[node], node.meta["module"], node.meta["line"]
            flow.native = node.meta.get("native", False)
            flow.written = _storage(node.meta.get("val")) in written
            stale = {parent: unknown(values[parent]) for parent in writes.stale(node)}
            values[node] = _apply(flow, node, {**values, **stale} if stale else values, barred, calls)
            writes.note(node)
        flow.results[node.name] = values.get(node)
    return {node.name: value for node, value in values.items()}


def _place(condition: Condition) -> str:
    return f"{condition.module or 'forward'} ({short_line(condition.line)})"


def _keep_compared(flow: Flow, barred: Bars, values: dict[str, Any]) -> None:
    """Keeps the channels whose number the model's code compares, where another number would lead elsewhere."""
    for leaf, bar in barred.items():
        flow.op, flow.node, flow.module, flow.line = "if", "", bar.module, bar.line
        if isinstance(leaf, Size):
            flow.freeze([values[leaf.node].axes[leaf.dim]], bar.reason)
        elif isinstance(leaf, Source):
            owned = (leaf.module, leaf.name)
            counted = [
                a.axis for a in flow.attributes if leaf == a.source or (a.key.rpartition(".")[0], a.name) == owned
            ]
            counted += [axis for expression, axis in flow.expressions if leaf in leaves(expression)]
            flow.freeze(counted, bar.reason)


def _keep_unseen(flow: Flow, recordings: Recordings, parameters: dict[str, Value], values: dict[str, Any]) -> None:
    """Keeps what code that nobody saw may use: all of it, or the parameters that no pass uses and what fits them."""
    flow.op, flow.node, flow.module, flow.line = "forward", "", "", ""
    if recordings.unseen:
        for value in values.values():
            flow.freeze(all_axes(value), recordings.unseen)
        return
    unused = [value for key, value in parameters.items() if key not in recordings.used()]
    sizes = {size for value in unused for size in value.shape if size > 1}
    for value in unused:
        flow.freeze(value.axes, recordings.unknown)
    for value in values.values():
        fitting = [axis for axis in all_axes(value) if axis is not None and any(n % len(axis) == 0 for n in sizes)]
        flow.freeze(
            fitting, f"{recordings.unknown} and may bring these channels to parameters that evaluation does not use"
        )


def _enter(flow: Flow, node: fx.Node, captured: Captured, parameters: dict[str, Value], variances: set[str]) -> Value:
    shape = tuple(node.meta["val"].shape) if isinstance(node.meta.get("val"), Tensor) else ()
    key = captured.parameters.get(node.name)
    if key is None:
        return Value.fixed(shape)
    if key in parameters:
        return parameters[key]
    axes = tuple(flow.units.axis(size) for size in shape)
    masked = None if key in variances else 0.0  # nobody masks a variance by zero
    for dim, axis in enumerate(axes):
        if len(axis):
            flow.keys[int(axis[0, 0])] = (key, dim)
    parameters[key] = Value(shape, axes, key, masked=(masked,) * len(shape))
    return parameters[key]


def _apply(flow: Flow, node: fx.Node, values: dict[fx.Node, Any], barred: Bars, calls: Counter[str]) -> Any:
    flow.op, flow.node, flow.shape = op_name(node.target), node.name, _shapes(node.meta.get("val"))
    flow.call, calls[flow.op] = calls[flow.op], calls[flow.op] + 1
    record = record_of(flow.op)
    operands = {parent: values[parent] for parent in node.all_input_nodes}
    if any(isinstance(value, Stacked) for value in operands.values()) and record.kind != "recurrent":
        apart = of_stacked(flow, fx.node.map_arg(node.args, lambda n: operands[n]))
        if apart is not None and node.name not in barred:
            return apart
        operands = {parent: flow.unstacked(value) for parent, value in operands.items()}
    if node.name in barred:
        bar = barred[node.name]
        entering = {p: v for p, v in operands.items() if bar.parameters or isinstance(v, list) or v.key is None}
        if bar.dims is None:
            flow.freeze([axis for value in entering.values() for axis in all_axes(value)], bar.reason)
            operands |= {parent: fixed(value) for parent, value in entering.items()}
        for d in bar.dims or ():
            flow.freeze([value.axes[d] for value in operands.values() if -d <= len(value.axes)], bar.reason)
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: operands[n])
    if node.meta["numbers"]:
        plain = followed if flow.module_form else settled
        args, kwargs = map_leaves(args, plain), map_leaves(kwargs, plain)
    try:
        if record.rule is None:
            raise Unsupported(f"no rule for {flow.op} yet")
        if "out" in kwargs:
            raise Unsupported("writes to a tensor that is given by out=")
        result = record.rule(flow, *args, **kwargs)
        _check(result, flow.shape)
        result = with_constants(record, node, args, kwargs, result)
        if node.name in barred and record.spreads:
            flow.freeze(all_axes(result), barred[node.name].reason)
        return result
    except Unsupported as unsupported:
        reason = str(unsupported)
    except (
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        KeyError,
        StopIteration,
        AssertionError,
        ArithmeticError,
    ) as error:
        reason = f"its rule does not know this form of the op ({type(error).__name__}: {error})"
    flow.freeze([axis for value in operands.values() for axis in all_axes(value)], reason)
    if isinstance(flow.shape, list):
        return [Value.fixed(shape) for shape in flow.shape]
    return Value.fixed(flow.shape)


def _written(captured: Captured) -> set[int]:
    """The storages that an op writes to in place."""
    storages: set[int] = set()
    for node in captured.calls:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            for argument, value in zip(schema.arguments, node.args, strict=False):
                if argument.is_write and isinstance(value, fx.Node):
                    storages.add(_storage(value.meta.get("val")))
            storages |= {_storage(v.meta.get("val")) for v in node.kwargs.values() if isinstance(v, fx.Node)}
    return storages


def _storage(value: Any) -> int:
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else 0


def _check(result: Any, shape: Any) -> None:
    """Raises Unsupported unless a rule made what the op made, and axes as long as it has: no rule may be believed
    that forgot an argument."""
    for value, size in zip(result, shape, strict=True) if isinstance(result, list) else [(result, shape)]:
        lengths = [n if axis is None else len(axis) for axis, n in zip(value.axes, value.shape, strict=True)]
        if value.shape != tuple(size) or lengths != list(value.shape):
            raise Unsupported(f"its rule takes the result for {lengths}, and it is {list(size)}")


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return [tuple(v.shape) if isinstance(v, Tensor) else () for v in value]
    return ()
