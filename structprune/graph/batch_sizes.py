"""The ways that a model's code goes at other batch sizes: `if len(x) > 2`, `if x.shape[0] == 1`."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import replace

from torch import fx, nn

from ..errors import ModelError
from ..ops import Captured
from ..ops.forward_pass import record
from ..ops.provenance import Size, evaluate, leaves
from .trials import axes_of, batch_of, resized

MOST_PATHS = 4  # of one model, its own among them
_MOST_BATCH = 64  # the largest batch that is looked at


def other_paths(model: nn.Module, main: Captured, notes: list[str]) -> list[Captured]:
    """Recordings at batch sizes at which a comparison comes out otherwise, and other calls are made.

    What can't be recorded is said in `notes`.
    """
    batch, _ = axes_of(main.inputs)
    if not batch or main.questions:
        return []
    paths, tried = [main], {batch_of(main.inputs)}
    for captured in paths:  # grows
        for size in _turning(captured):
            if size in tried or len(paths) == MOST_PATHS:
                continue
            tried.add(size)
            inputs = resized(main.inputs, {batch[0]: size})
            try:
                other, error = record(model, inputs, scenario=replace(main.scenario, label=f"b{size}_"))
            except ModelError as refused:  # it returns there what can't be looked into
                other, error = main, str(refused)
            if error is not None and (other is main or other.unknown):
                notes.append(f"the way that the model's code goes at a batch of {size} was not seen: {error}")
            if error is None and all(_calls(other) != _calls(path) for path in paths):
                paths.append(other)
    return paths[1:]


def _turning(captured: Captured) -> Iterator[int]:
    """For each comparison of the batch's size, the least at which it comes out otherwise."""
    batch = batch_of(captured.inputs)
    for condition in captured.conditions:
        numbers = leaves(condition.test)
        if not any(_is_batch(leaf, batch) for leaf in numbers):
            continue
        function, left, right = condition.test
        for size in range(1, _MOST_BATCH + 1):
            known = {leaf: size if _is_batch(leaf, batch) else leaf.value for leaf in numbers if isinstance(leaf, Size)}
            if len(known) < len(set(numbers)):
                break  # attributes stand for themselves: seldom beside a batch
            try:
                outcome = bool(evaluate((function, left, right), known))
            except ArithmeticError:  # a batch at which the code itself fails
                continue
            if outcome != condition.outcome:
                yield size
                break


def _is_batch(leaf: object, batch: int) -> bool:
    return isinstance(leaf, Size) and leaf.dim == 0 and leaf.value == batch


def _calls(captured: Captured) -> list[object]:
    nodes = list(captured.graph.nodes)
    places = {node: i for i, node in enumerate(nodes)}
    return [(_target(node), [places[parent] for parent in node.all_input_nodes]) for node in nodes]


def _target(node: fx.Node) -> object:
    if node.target is operator.getitem:
        return node.args[1]
    return node.target if node.op == "call_function" else node.op
