"""Walks a captured graph with the op rules, and finds the dependency graph of a model."""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, fx, nn

from .capture import Captured, Inputs, capture, op_name
from .dependency import DependencyGraph
from .flow import Flow, Unsupported, Value, all_axes, fixed
from .probe import unfollowed
from .rules import RULES


def trace(model: nn.Module, example_inputs: Any) -> DependencyGraph:
    """Finds the groups of coupled channels of `model`.

    `example_inputs` is a tensor, a tuple of arguments or a dict of keyword arguments; one forward pass runs
    on fake copies of them, in evaluation mode, and nothing is computed. MACs are those of one pass on these
    inputs, so give a batch of 1 for MACs a sample. Raises ModelError if the model cannot run on them.
    """
    inputs = Inputs.of(example_inputs)
    captured = capture(model, inputs)
    barred: dict[str, str] = {}
    while True:
        graph, shapes = analyse(model, inputs, captured, barred)
        found = unfollowed(graph, captured, shapes, barred)
        if found is None:
            return graph
        barred.update([found])


def analyse(
    model: nn.Module, inputs: Inputs, captured: Captured, barred: dict[str, str]
) -> tuple[DependencyGraph, dict[str, Any]]:
    """Applies the rules to each node in turn; channels that enter a node in `barred` stay, for the reason given there.

    Returns the graph and, for each node, its Value (or list of them).
    """
    flow = Flow()
    values: dict[fx.Node, Any] = {}
    parameters: dict[str, Value] = {}
    depth: dict[fx.Node, int] = {}
    for node in captured.graph.nodes:
        depth[node] = 1 + max((depth[parent] for parent in node.all_input_nodes), default=0)
        if node.op == "placeholder":
            values[node] = _enter(flow, node, captured, parameters)
        elif node.op == "get_attr":
            values[node] = Value.fixed(getattr(node.meta.get("val"), "shape", ()))
        elif node.op == "output":
            for leaf in node.all_input_nodes:
                flow.freeze(all_axes(values[leaf]), None)
        elif node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        else:
            flow.depth, flow.module = depth[node], node.meta.get("module", "")
            values[node] = _apply(flow, node, values, barred)
    graph = DependencyGraph(model, inputs, flow, parameters)
    return graph, {node.name: value for node, value in values.items()}


def _enter(flow: Flow, node: fx.Node, captured: Captured, parameters: dict[str, Value]) -> Value:
    shape = tuple(node.meta["val"].shape) if isinstance(node.meta.get("val"), Tensor) else ()
    key = captured.parameters.get(node.name)
    if key is None:
        return Value.fixed(shape)
    parameters[key] = Value(shape, tuple(flow.units.axis(size) for size in shape), key)
    return parameters[key]


def _apply(flow: Flow, node: fx.Node, values: dict[fx.Node, Any], barred: dict[str, str]) -> Any:
    flow.op, flow.node, flow.shape = op_name(node.target), node.name, _shapes(node.meta.get("val"))
    given = {parent: values[parent] for parent in node.all_input_nodes}
    if node.name in barred:
        entering = {parent: value for parent, value in given.items() if isinstance(value, list) or value.key is None}
        flow.freeze([axis for value in entering.values() for axis in all_axes(value)], barred[node.name])
        given |= {parent: fixed(value) for parent, value in entering.items()}
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: given[n])
    try:
        if flow.op not in RULES:
            raise Unsupported(f"no rule for {flow.op} yet")
        return RULES[flow.op](flow, *args, **kwargs)
    except Unsupported as unsupported:
        reason = str(unsupported)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"its rule does not know this form of the op ({type(error).__name__}: {error})"
    flow.freeze([axis for value in given.values() for axis in all_axes(value)], reason)
    if isinstance(flow.shape, list):
        return [Value.fixed(shape) for shape in flow.shape]
    return Value.fixed(flow.shape)


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return [tuple(v.shape) if isinstance(v, Tensor) else () for v in value]
    return ()
