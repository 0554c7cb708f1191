"""Goes through a model call by call over all batches, so that weights may change on the way.

Reconstruction works layer by layer, each on what the layers before it make by now. Running the model anew for each
layer costs its depth times a pass. Here a run up to a layer starts where the last one stopped: the module's own code
runs again, but calls that were made before only hand out what they made then, as far as later calls need it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..graph.recorded_calls import call_lives
from ..memory_limits import LIMIT
from ..modules import evaluating
from ..ops import Captured, Inputs, OpMode, leaves_of, op_name
from ..ops.answers import without_masks
from ..ops.record import in_order


class _Stop(Exception):
    """The call to stop at is reached."""


See = Callable[[int, tuple[Any, ...]], None]  # gets the number of a batch and the arguments of a call


class Sweep:
    """One pass of `model` over `batches`, taken in steps. `recording` is one of the same model.

    Results that later calls need are kept for all batches: about the size of one layer's activations for each image.
    Where they are more than `memory` bytes, the last of the batches start from the beginning at each step.
    """

    def __init__(self, model: nn.Module, recording: Captured, batches: list[Inputs], memory: float = LIMIT) -> None:
        self.model, self.batches, self.memory = model, batches, memory
        lives = call_lives(recording)
        self.names = [life.op for life in lives]
        self.last = [life.last_reader for life in lives]
        self.mutates = any(life.writes for life in lives)
        self.done = 0  # where it stands
        self.starts = [0] * len(batches)  # calls before these are not made again
        self.anew = 0  # the most batches that had to start from the beginning
        self.kept: list[dict[int, Any]] = [{} for _ in batches]
        self.shapes: list[dict[int, Any]] = [{} for _ in batches]

    def until(self, place: int) -> list[tuple[Any, ...]]:
        """Goes on to just before a call.

        Args:
            place: the number of the call

        Returns:
            The arguments that the call gets, for each batch.

        Raises:
            ValueError: the call is behind where the sweep stands
        """
        arguments: list[tuple[Any, ...]] = []
        self.go(place, lambda batch, args: arguments.append(args))
        return arguments

    def go(self, place: int, see: See = lambda batch, args: None) -> None:
        """Goes on to just before a call.

        Args:
            place: the number of the call
            see: `see(batch, args)` gets the number of a batch and the arguments of its call, one batch at a time

        Raises:
            ValueError: the call is behind where the sweep stands
        """
        if place < self.done:
            raise ValueError(f"call {place} is behind call {self.done}")
        self._run(place, {place: see}, keep=True)
        self.done = place

    def arguments(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Runs to the call at which the sweep stands, batch by batch; one batch is held at a time.

        Returns:
            Yields the number of each batch with the arguments of its call.
        """
        for number in range(len(self.batches)):
            arguments: dict[int, tuple[Any, ...]] = {}
            self._run(self.done, {self.done: arguments.__setitem__}, keep=False, batches=[number])
            yield number, arguments.pop(number)

    def look(self, watch: Mapping[int, See]) -> None:
        """Looks ahead, and stays where it is.

        Args:
            watch: for numbers of calls further on, what gets (batch, args) of each
        """
        self._run(max(watch), watch, keep=False)

    def finish(self, batches: Sequence[int] | None = None) -> list[Any]:
        """Runs the rest of the model with its weights as they are now, and stays where it is.

        Args:
            batches: the numbers of the batches to run; all of them by default

        Returns:
            What the model returns for each batch.
        """
        results: list[Any] = []
        self._run(len(self.names), {}, keep=False, results=results, batches=batches)
        return results

    def _run(
        self,
        end: int,
        watch: Mapping[int, See],
        keep: bool,
        results: list[Any] | None = None,
        batches: Sequence[int] | None = None,
    ) -> None:
        held: dict[int, int] = {}  # bytes by where they lie
        anew = 0
        with evaluating(self.model):
            for number in range(len(self.batches)) if batches is None else batches:
                inputs = self.batches[number]
                replay = _Replay(self, number, end, watch, keep)
                try:
                    with replay:
                        result = inputs.call(self.model)
                except _Stop:
                    if keep:  # with what the calls of this run have written to it
                        kept = {i: value for i, value in replay.handed.items() if self.last[i] >= end}
                        more = held | _storages(kept)
                        fits = sum(more.values()) <= self.memory
                        self.kept[number], self.starts[number] = (kept, end) if fits else ({}, 0)
                        held, anew = (more, anew) if fits else (held, anew + 1)
                        self.anew = max(self.anew, anew)
                    continue
                if results is None:
                    raise ModelError("the model did not make the calls that it made when it was traced")
                results.append(result)


class _Replay(OpMode):
    """A run on one batch that starts where it last stopped, and stops at `end`, after `watch` has seen it."""

    def __init__(
        self,
        sweep: Sweep,
        batch: int,
        end: int,
        watch: Mapping[int, See],
        keep: bool,
    ) -> None:
        super().__init__()
        self.sweep, self.batch, self.end, self.watch, self.keep, self.now = sweep, batch, end, watch, keep, 0
        self.shapes, kept, self.start = sweep.shapes[batch], sweep.kept[batch], sweep.starts[batch]
        self.handed = copy.deepcopy(kept) if sweep.mutates else dict(kept)  # later calls may write to it

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        op, args = without_masks(op, args, self.call)
        name, names, place = op_name(op), self.sweep.names, self.now
        while place < len(names) and names[place] == "slice" and name not in ("slice", "alias"):
            place += 1  # a recorded slice that follows a size, and takes all there is at this one: torch makes none
        self.now = place + 1
        if place in self.watch:
            self.watch[place](self.batch, tuple(in_order(op, args, kwargs)))
        if place == self.end:
            raise _Stop
        if place >= len(names) or (name != names[place] and (name, names[place]) != ("alias", "slice")):
            expected = names[place] if place < len(names) else "the end"
            raise ModelError(f"call {place} is {name}, and was {expected} when the model was traced")
        if place < self.start:
            if place in self.handed:
                return self.handed[place]
            return args[0] if op._schema.is_mutable else _blank(self.shapes[place])
        result = op(*args, **kwargs)
        if self.keep:
            self.shapes[place] = _shape(result)
            if self.sweep.last[place] >= self.end:
                self.handed[place] = result
        return result


def _storages(kept: Mapping[int, Any]) -> dict[int, int]:
    """The bytes of what is kept, by where they lie: views share theirs."""
    sizes = {}
    for value in leaves_of(tuple(kept.values())):
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sizes


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    return [_shape(item) for item in value] if isinstance(value, (list, tuple)) else value


def _blank(shape: Any) -> Any:
    if isinstance(shape, tuple) and len(shape) == 3 and isinstance(shape[0], torch.Size):
        size, dtype, device = shape
        return torch.zeros((), dtype=dtype, device=device).expand(size)
    return [_blank(item) for item in shape] if isinstance(shape, list) else shape
