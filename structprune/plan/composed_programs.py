"""Programs of composed plans: what of them speaks of the network in between is said of the dense one.

A slim network in graph form holds the constants of its program as buffers, and a program that was recorded of it reads
them as such. The dense network has no such buffers, so they become constants again, cut as the second plan cuts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..errors import PlanError
from ..plan_schema import Constant, KeptAxes, Path, Program, in_blocks
from ..records import Plan

HELD = "_constants."  # where a graph form keeps its program's constants


def own_keys(first: Plan, other: Plan) -> Iterator[tuple[str, KeptAxes]]:
    """What the second plan slices of the dense network's own tensors."""
    held = _constants(first.program) if first.program is not None else {}
    for key, axes in other.keep.items():
        if not (key.startswith(HELD) and key.removeprefix(HELD) in held):
            yield key, axes


def composed_program(first: Plan, other: Plan) -> Program:
    """The second plan's program, as one of the dense network's."""
    assert other.program is not None
    if first.program is None:
        return other.program
    known = _constants(cut_constants(first.program, other.keep))
    return _of_paths([_with_constants(path, known) for path in _paths(other.program)])


def cut_constants(program: Program, keep: Mapping[str, KeptAxes]) -> Program:
    """The same program, with its constants sliced where a plan slices the buffers that hold them."""
    paths: list[Path] = []
    for path in _paths(program):
        constants = {name: _cut(name, entry, keep.get(HELD + name, {})) for name, entry in path["constants"].items()}
        paths.append({**path, "constants": constants})
    return _of_paths(paths)


def _paths(program: Program) -> list[Path]:
    first = Path(
        inputs=program["inputs"],
        constants=program["constants"],
        nodes=program["nodes"],
        output=program["output"],
    )
    return [first, *program.get("paths", [])]


def _of_paths(paths: list[Path]) -> Program:
    first, *others = paths
    return {**first, "paths": others} if others else {**first}


def _constants(program: Program) -> dict[str, Constant]:
    return {name: entry for path in _paths(program) for name, entry in path["constants"].items()}


def _with_constants(path: Path, known: Mapping[str, Constant]) -> Path:
    constants, nodes = dict(path["constants"]), []
    for node in path["nodes"]:
        name = node["target"].removeprefix(HELD)
        if node["kind"] == "get" and node["target"].startswith(HELD) and name in known:
            if constants.setdefault(name, known[name]) != known[name]:
                raise PlanError(f"the plans can't be composed: both programs have a constant {name}, and not the same")
            node = {**node, "kind": "constant", "target": name}
        nodes.append(node)
    return {**path, "constants": constants, "nodes": nodes}


def _cut(name: str, entry: Constant, axes: KeptAxes) -> Constant:
    if not axes:
        return entry
    numbers = entry["dtype"].startswith("complex")  # pairs, on one axis more
    values = np.array(entry["values"], dtype=object).reshape([*entry["shape"], *([2] if numbers else [])])
    for axis, kept in axes.items():
        if in_blocks(kept) or max(kept) >= values.shape[int(axis)]:
            raise PlanError(f"the plans can't be composed: the second keeps {kept} of constant {name}")
        values = values.take(kept, axis=int(axis))
    return {**entry, "values": values.tolist(), "shape": list(values.shape[: len(entry["shape"])])}
