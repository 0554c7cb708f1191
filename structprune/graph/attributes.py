"""The numbers of the user's modules that must follow their weights: `in_channels`, `num_heads`, `normalized_shape`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from ..module_numbers import is_number, read
from ..modules import tensors, walk
from ..ops.provenance import Source, evaluate, sources
from .axes import Axis, alive
from .channels import ChannelGraph
from .flow import Attribute, Flow
from .removal import Kept, mark_removed
from .values import Value


def follow_attributes(flow: Flow, model: nn.Module, values: Mapping[str, Value]) -> None:
    """Makes the axes that one attribute, or one expression of attributes, counts equally long, whatever goes.

    `values` are the parameters and buffers by their keys.
    """
    counted: dict[Any, list[Axis]] = {}
    modules = dict(walk(model))
    keys = {id(tensor): key for key, tensor in tensors(model).items()}
    for path, module in modules.items():
        if isinstance(module, nn.MultiheadAttention):
            flow.module = path
            weights = {name: values[keys[id(parameter)]] for name, parameter in module.named_parameters()}
            entering = _follow_attention(flow, weights, module.head_dim)
            for above, outer in modules.items():
                if isinstance(outer, nn.Transformer) and path.startswith(f"{above}." if above else ""):
                    flow.attributes.append(Attribute(entering, source=Source(above, "d_model")))
    flow.attributes = [a for a in flow.attributes if _counts(a, modules)]
    for attribute in flow.attributes:
        if attribute.source is not None and attribute.flag is None:
            counted.setdefault(attribute.source, []).append(attribute.axis)
    for expression, axis in flow.expressions:
        counted.setdefault(expression, []).append(axis)
    owners = _owners(model)
    for attribute in flow.attributes:  # numbers of layers, where the code reads them elsewhere too
        for path in owners.get(attribute.key, ()):
            source = Source(path, attribute.name)
            if source in counted and attribute.axis is not None:
                counted[source].append(attribute.axis[:: attribute.divisor])
    for expression, axes in counted.items():
        different = {None if axis is None else axis.tobytes(): axis for axis in axes}
        if len(different) > 1:
            source = sources(expression)[0]
            flow.module = source.module
            flow.balance(list(different.values()), f"the attribute {source.name} also counts something that stays")


def _follow_attention(flow: Flow, weights: dict[str, Value], width: int) -> Axis:
    """`nn.MultiheadAttention` takes one number, `embed_dim`, for its input and for its heads times their width.

    That `width` stays, as the scale of the scores is worked out from it, so the number of heads follows `embed_dim`.
    Returns the axis of its input.
    """
    if "in_proj_weight" in weights:
        packed = weights["in_proj_weight"]
        entering, projected = packed.axes[1], packed.axes[0]
        parts: list[Axis] = [None] * 3 if projected is None else list(np.split(projected, 3))
        for name in ("kdim", "vdim"):
            flow.attribute(packed, name, entering)
    else:
        entering = weights["q_proj_weight"].axes[1]
        parts = [weights[f"{name}_proj_weight"].axes[0] for name in "qkv"]
        for name in "kv":
            flow.attribute(weights[f"{name}_proj_weight"], f"{name}dim", weights[f"{name}_proj_weight"].axes[1])
    leaving = weights["out_proj.weight"]
    for value in weights.values():
        if value is not leaving:
            flow.attribute(value, "embed_dim", entering)
            flow.attribute(value, "num_heads", entering, width)
    flow.balance([entering, *parts], "has one width for its input and for all its heads")
    return entering


def _counts(attribute: Attribute, modules: dict[str, Any]) -> bool:
    """Whether the module has such a number, and it is the dense length: else it is about something else."""
    if attribute.source is None or attribute.flag is not None or attribute.axis is None:
        return True
    return _read(modules, attribute.source) == len(attribute.axis) // attribute.divisor


def slim_attributes(graph: ChannelGraph, kept: Kept) -> dict[str, dict[str, Any]]:
    """The attributes that change in a removal: {module path: {attribute: new value}}; none in the graph form."""
    if graph.form != "module":
        return {}
    removed = mark_removed(graph, kept)
    modules = dict(walk(graph.model))
    owners = _owners(graph.model)
    result: dict[str, dict[str, Any]] = {}
    values: dict[Source, int] = {}
    for attribute in graph.attributes:
        assert attribute.axis is not None
        if attribute.source is not None:
            targets = [attribute.source]
        else:
            targets = [Source(path, attribute.name) for path in owners[attribute.key]]
        before = len(attribute.axis) // attribute.divisor
        after = int(alive(attribute.axis, removed).sum()) // attribute.divisor
        for target in targets:
            if attribute.flag is not None:
                if after != before and getattr(modules[target.module], target.name, None) not in (None, attribute.flag):
                    result.setdefault(target.module, {})[target.name] = attribute.flag
            elif _read(modules, target) == before:
                values[target] = after
    _solve(graph, modules, removed, values)
    for target, value in values.items():
        if value == _read(modules, target):
            continue
        changed = result.setdefault(target.module, {})
        if target.place is None:
            changed[target.name] = value
        else:
            old = changed.get(target.name, [int(n) for n in read(modules[target.module], target.name)])
            changed[target.name] = [*old[: target.place], value, *old[target.place + 1 :]]
    return result


def axes_of_sources(graph: ChannelGraph) -> dict[Source, tuple[np.ndarray, int]]:
    """The attributes that follow channels: each is the number of positions left on an axis of classes, over a
    divisor."""
    modules, owners = dict(walk(graph.model)), _owners(graph.model)
    axes: dict[Source, tuple[np.ndarray, int]] = {}
    for attribute in graph.attributes:
        if attribute.axis is None or attribute.flag is not None:
            continue
        targets = [attribute.source] if attribute.source else [Source(p, attribute.name) for p in owners[attribute.key]]
        for target in targets:
            if _read(modules, target) == len(attribute.axis) // attribute.divisor:
                axes[target] = attribute.axis, attribute.divisor
    return axes


def _solve(graph: ChannelGraph, modules: dict[str, Any], removed: np.ndarray, values: dict[Source, int]) -> None:
    """Finds attributes that are only used within expressions (`self.dim // self.num_heads`), one unknown at a time:
    the least value with which every such expression comes out right."""
    conditions: dict[Source, list[tuple[Any, int]]] = {}
    for expression, axis in graph.expressions:
        unknown = {s for s in sources(expression) if s not in values and _read(modules, s) is not None}
        if axis is not None and len(unknown) == 1:
            conditions.setdefault(unknown.pop(), []).append((expression, int(alive(axis, removed).sum())))
    for target, lengths in conditions.items():
        dense = _read(modules, target)
        known = {s: values.get(s, _read(modules, s)) for expression, _ in lengths for s in sources(expression)}

        def right(value: int, target: Source = target, lengths: Any = lengths, known: Any = known) -> bool:
            try:
                return all(evaluate(expression, {**known, target: value}) == length for expression, length in lengths)
            except ArithmeticError:  # no value for this expression
                return False

        if not right(dense) and dense <= _MOST:
            values[target] = next((v for v in range(1, dense) if right(v)), dense)


_MOST = 1 << 16  # the largest width whose place in an expression is searched for


def _read(modules: dict[str, Any], source: Source) -> Any:
    value = read(modules.get(source.module), source.name)
    if source.place is not None and value is not None:
        value = value[source.place]
    return int(value) if is_number(value) else None


def _owners(model: nn.Module) -> dict[str, list[str]]:
    """The modules that hold each parameter or buffer, by its key."""
    keys = {id(tensor): key for key, tensor in tensors(model).items()}
    owners: dict[str, list[str]] = {}
    for path, module in walk(model):
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                owners.setdefault(keys[id(tensor)], []).append(path)
    return owners
