"""Programs of composed plans: what of them speaks of the network in between is said of the dense one.

A slim network in graph form holds the constants of its program as buffers, and a program that was recorded of it reads
them as such. The dense network has no such buffers, so they become constants again, cut as the second plan cuts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import PlanError
from ..records import Plan

HELD = "_constants."  # where a graph form keeps its program's constants


def own_keys(first: Plan, other: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the second plan slices of the dense network's own tensors."""
    held = _constants(first.program) if first.program is not None else {}
    for key, axes in other.keep.items():
        if not (key.startswith(HELD) and key.removeprefix(HELD) in held):
            yield key, axes


def composed_program(first: Plan, other: Plan) -> dict[str, Any]:
    """The second plan's program, as one of the dense network's."""
    assert other.program is not None
    if first.program is None:
        return other.program
    known = _constants(cut_constants(first.program, other.keep))
    paths = [_with_constants(path, known) for path in _paths(other.program)]
    return {**paths[0], **({"paths": paths[1:]} if len(paths) > 1 else {})}


def cut_constants(program: dict[str, Any], keep: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The same program, with its constants sliced where a plan slices the buffers that hold them."""
    paths = []
    for path in _paths(program):
        constants = {name: _cut(name, entry, keep.get(HELD + name, {})) for name, entry in path["constants"].items()}
        paths.append({**path, "constants": constants})
    return {**paths[0], **({"paths": paths[1:]} if len(paths) > 1 else {})}


def _paths(program: dict[str, Any]) -> list[dict[str, Any]]:
    first = {name: value for name, value in program.items() if name != "paths"}
    return [first, *program.get("paths", [])]


def _constants(program: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for path in _paths(program) for name, entry in path["constants"].items()}


def _with_constants(path: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    constants, nodes = dict(path["constants"]), []
    for node in path["nodes"]:
        name = node["target"].removeprefix(HELD)
        if node["kind"] == "get" and node["target"].startswith(HELD) and name in known:
            if constants.setdefault(name, known[name]) != known[name]:
                raise PlanError(f"the plans can't be composed: both programs have a constant {name}, and not the same")
            node = {**node, "kind": "constant", "target": name}
        nodes.append(node)
    return {**path, "constants": constants, "nodes": nodes}


def _cut(name: str, entry: dict[str, Any], axes: Mapping[str, Any]) -> dict[str, Any]:
    if not axes:
        return entry
    numbers = entry["dtype"].startswith("complex")  # pairs, on one axis more
    values = np.array(entry["values"], dtype=object).reshape([*entry["shape"], *([2] if numbers else [])])
    for axis, kept in axes.items():
        if isinstance(kept[0], list) or max(kept) >= values.shape[int(axis)]:
            raise PlanError(f"the plans can't be composed: the second keeps {kept} of constant {name}")
        values = values.take(kept, axis=int(axis))
    return {**entry, "values": values.tolist(), "shape": list(values.shape[: len(entry["shape"])])}
