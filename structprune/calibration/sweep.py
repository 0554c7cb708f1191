"""Goes through a model call by call over all batches, so that weights may change on the way.

Reconstruction works layer by layer, each on what the layers before it make by now. Running the model anew for each
layer costs its depth times a pass. Here a run up to a layer starts where the last one stopped: the module's own code
runs again, but calls that were made before only hand out what they made then, as far as later calls need it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import ModelError
from ..graph.capture import Captured, Inputs, op_name
from ..graph.recorder import OpMode
from ..modules import evaluating
from .layers import ops


class _Stop(Exception):
    """The call to stop at is reached."""


class Sweep:
    """One pass of `model` over `batches`, taken in steps. `captured` is a recording of the same model.

    Results that later calls need are kept for all batches: about the size of one layer's activations for each image.
    """

    def __init__(self, model: nn.Module, captured: Captured, batches: list[Inputs]) -> None:
        self.model, self.batches = model, batches
        nodes = ops(captured)
        self.names = [op_name(node.target) for node in nodes]
        place = {node: i for i, node in enumerate(nodes)}
        self.last = [max([_last(user, place) for user in node.users], default=-1) for node in nodes]
        for i in reversed(range(len(nodes))):
            target = nodes[i].args[0] if nodes[i].args else None
            if (
                _mutable(nodes[i]) and isinstance(target, fx.Node) and target in place
            ):  # later calls read what it wrote to
                written = place[target]
                self.last[written] = max(self.last[written], self.last[i])
        self.mutates = any(_mutable(node) for node in nodes)
        self.done = 0  # calls before this one are not made again
        self.kept: list[dict[int, Any]] = [{} for _ in batches]
        self.shapes: list[dict[int, Any]] = [{} for _ in batches]

    def until(self, place: int) -> list[tuple[Any, ...]]:
        """Goes on to just before call number `place`, and returns the arguments that it gets, for each batch."""
        if place < self.done:
            raise ValueError(f"call {place} is behind call {self.done}")
        arguments: list[tuple[Any, ...]] = []
        self._run(place, {place: lambda batch, args: arguments.append(args)}, keep=True)
        self.done = place
        return arguments

    def look(self, watch: Mapping[int, Callable[[int, tuple[Any, ...]], None]]) -> None:
        """Looks ahead: calls `watch[place](batch, args)` at calls further on, and stays where it is."""
        self._run(max(watch), watch, keep=False)

    def finish(self, batches: Sequence[int] | None = None) -> list[Any]:
        """What the model returns for each batch (or those numbered), with its weights as they are now; stays where it
        is."""
        results: list[Any] = []
        self._run(len(self.names), {}, keep=False, results=results, batches=batches)
        return results

    def _run(
        self,
        end: int,
        watch: Mapping[int, Callable[[int, tuple[Any, ...]], None]],
        keep: bool,
        results: list[Any] | None = None,
        batches: Sequence[int] | None = None,
    ) -> None:
        with evaluating(self.model):
            for number in range(len(self.batches)) if batches is None else batches:
                inputs = self.batches[number]
                replay = _Replay(self, number, end, watch, keep)
                try:
                    with replay:
                        result = inputs.call(self.model)
                except _Stop:
                    if keep:  # with what the calls of this run have written to it
                        self.kept[number] = {i: made for i, made in replay.handed.items() if self.last[i] >= end}
                    continue
                if results is None:
                    raise ModelError("the model did not make the calls that it made when it was traced")
                results.append(result)


class _Replay(OpMode):
    """A run on one batch that starts at call `sweep.done` and stops at `end`, after `watch` has seen it."""

    def __init__(
        self,
        sweep: Sweep,
        batch: int,
        end: int,
        watch: Mapping[int, Callable[[int, tuple[Any, ...]], None]],
        keep: bool,
    ) -> None:
        super().__init__()
        self.sweep, self.batch, self.end, self.watch, self.keep, self.now = sweep, batch, end, watch, keep, 0
        self.shapes, kept = sweep.shapes[batch], sweep.kept[batch]
        self.handed = copy.deepcopy(kept) if sweep.mutates else dict(kept)  # later calls may write to it

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place, self.now = self.now, self.now + 1
        if place in self.watch:
            self.watch[place](self.batch, args)
        if place == self.end:
            raise _Stop
        names = self.sweep.names
        if place >= len(names) or op_name(op) != names[place]:
            expected = names[place] if place < len(names) else "the end"
            raise ModelError(f"call {place} is {op_name(op)}, and was {expected} when the model was traced")
        if place < self.sweep.done:
            if place in self.handed:
                return self.handed[place]
            return args[0] if op._schema.is_mutable else _blank(self.shapes[place])
        result = op(*args, **kwargs)
        if self.keep:
            self.shapes[place] = _shape(result)
            if self.sweep.last[place] >= self.end:
                self.handed[place] = result
        return result


def _last(user: Any, place: dict[Any, int]) -> int:
    """The last call that reads what `user` is or makes one of."""
    if user in place:
        return place[user]
    if user.op == "output":
        return len(place)
    return max([_last(other, place) for other in user.users], default=-1)


def _mutable(node: fx.Node) -> bool:
    return bool(node.target._schema.is_mutable)  # type: ignore[union-attr]


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    return [_shape(item) for item in value] if isinstance(value, (list, tuple)) else value


def _blank(shape: Any) -> Any:
    if isinstance(shape, tuple) and len(shape) == 3 and isinstance(shape[0], torch.Size):
        size, dtype, device = shape
        return torch.zeros((), dtype=dtype, device=device).expand(size)
    return [_blank(item) for item in shape] if isinstance(shape, list) else shape
