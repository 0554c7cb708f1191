"""What a model's code asks tensors for: values that it branches on, and sizes that follow from values.

Meta tensors have none. So where forward asks (`if mask.all()`, `.item()`, `.tolist()`, `x[mask]`, `nonzero`), a copy
runs once on the real example, and its answers are given again, in the same order, whenever the model is recorded: at
other widths and other batch sizes too. A `Scenario` is one such way in which a model runs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from .provenance import Read, remembering


@dataclass(frozen=True)
class Answer:
    """What the op (or method of a tensor) `op` gave when the code at `line` in `module` asked: a `value`, or else the
    `shapes` of the tensors that it made, whose sizes follow from values."""

    op: str
    module: str
    line: str
    value: Any = None
    shapes: tuple[tuple[int, ...], ...] = ()
    dtypes: tuple[torch.dtype, ...] = ()

    @property
    def question(self) -> str:
        """What was asked, and where."""
        return f"{self.op} in {self.module or 'forward'} ({short_line(self.line)})"

    def text(self) -> str:
        outcome = f"made {' and '.join(map(str, self.shapes))}" if self.dtypes else f"was {_short(self.value)}"
        return f"{self.question} {outcome}"


def short_line(line: str) -> str:
    """The end of a file's path and the line's number."""
    return "/".join(line.split(os.sep)[-3:])


def _short(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 40 else f"{text[:37]}..."


class Flip(NamedTuple):
    """A line of code where things go another way than with the example: `how` is "not" for a truth or a comparison,
    "zero" or "more" for a number."""

    line: str
    how: str = "not"


def flipped(value: Any, line: str, flips: frozenset[Flip]) -> Any:
    """What an op gave at a line, or something else where the line is among `flips`."""
    if not any(flip.line == line for flip in flips):
        return value
    if isinstance(value, bool):
        return value != (Flip(line) in flips)
    zero, more = Flip(line, "zero") in flips, Flip(line, "more") in flips
    if isinstance(value, Tensor):  # of as many rows as the values decide
        if more and not len(value):
            return value.new_zeros((1, *value.shape[1:]))
        return value[:0] if zero else value
    if isinstance(value, (list, tuple)):
        return type(value)([flipped(item, line, flips) for item in value])
    if isinstance(value, np.ndarray):
        return ~value if value.dtype == bool else value * 0 if zero else abs(value) * 2 + 1 if more else value
    return type(value)(0) if zero else 2 * abs(value) + 1 if more else value


@dataclass(frozen=True)
class Scenario:
    """A way in which a model runs: in training mode or not, with `answers` to what the code asks tensors for (None if
    nobody knows them yet), and with the numbers and truths at the lines in `flips` other than with the example. `label`
    begins the names of its nodes.

    With `anew`, caches start empty, and where `first` gives inputs, the model runs on them before: what the code keeps
    of its last call does not fit then, and is made anew."""

    training: bool = False
    answers: tuple[Answer, ...] | None = None
    flips: frozenset[Flip] = frozenset()
    label: str = ""
    anew: bool = False
    first: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Question:
    """An answer, and the node of the graph that it was given at."""

    node: fx.Node
    answer: Answer


class UnknownAnswerError(Exception):
    """The code asks a meta tensor for something that only the real example can tell."""


class OtherPathError(Exception):
    """The code asks for something else than when it ran on the real example."""


_ATEN = torch.ops.aten
_PUTS = (_ATEN.index_put.default, _ATEN.index_put_.default)
_VALUES = frozenset(["item", "_local_scalar_dense", "is_nonzero", "equal", "allclose"])
_SIZED = frozenset(
    [
        *("nonzero", "nonzero_numpy", "argwhere", "masked_select", "repeat_interleave", "bincount"),
        *("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"),
    ]
)


def tolist(tensor: Tensor) -> Any:
    """Stands in a graph for `tensor.tolist()`."""
    return tensor.tolist()


def numpy(tensor: Tensor) -> Any:
    """Stands in a graph for `tensor.numpy()`."""
    return tensor.numpy()


READERS = {Tensor.tolist: tolist, Tensor.numpy: numpy, Tensor.__array__: numpy}


@functools.cache
def asks(op: Any) -> bool:
    """Whether an op reads a value out of a tensor, or makes tensors whose sizes follow from values."""
    name = op._schema.name[6:]
    if op.namespace != "aten" or op._overloadname == "self_int":  # repeat_interleave by one number for all
        return False
    return name in _VALUES | _SIZED


def without_masks(op: Any, args: tuple[Any, ...], call: Callable[..., Any]) -> tuple[Any, tuple[Any, ...]]:
    """The same op on the same arguments, with the places that each mask picks in its stead; `call` finds them."""
    if op is _ATEN.where.default:
        return _ATEN.nonzero_numpy.default, args
    picks = op is _ATEN.index.Tensor or (op in _PUTS and args[2].numel() != 1)
    if not picks or not any(_is_mask(index) for index in args[1]):
        return op, args
    indices: list[Any] = []
    for index in args[1]:
        indices += call(_ATEN.nonzero_numpy.default, (index,), {}) if _is_mask(index) else [index]
    return op, (args[0], indices, *args[2:])


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


@dataclass
class Answers:
    """Gives the answers of a scenario, one after the other; each call of `next_` is one question."""

    scenario: Scenario
    run: int
    position: int = 0
    unknown: str = ""  # the first question without an answer: the code may have caught the error
    questions: list[Question] = field(default_factory=list)

    def next_(self, op: str, module: str, line: str) -> Answer:
        if self.scenario.answers is None:
            self.unknown = self.unknown or Answer(op, module, line).question
            raise UnknownAnswerError(self.unknown)
        rest = self.scenario.answers[self.position :]
        if not rest or (rest[0].op, rest[0].line) != (op, line):
            before = f"for {rest[0].question}" if rest else "for nothing more"
            raise OtherPathError(
                f"its code asks for {Answer(op, module, line).question}, and on the real example asks {before}"
            )
        self.position += 1
        return rest[0]

    def remembered(self, value: Any) -> Any:
        """A value for the code, which remembers that it is the answer given last."""
        return remembering(value, Read(self.position - 1, 0, self.run))


def of_shapes(answer: Answer) -> Any:
    """Meta tensors as an op with this answer makes them."""
    tensors = [
        torch.empty(shape, dtype=dtype, device="meta")
        for shape, dtype in zip(answer.shapes, answer.dtypes, strict=True)
    ]
    if answer.op == "nonzero_numpy":
        return tensors
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def answer_of(op: str, module: str, line: str, result: Any) -> Answer:
    """The answer that a real result is."""
    if isinstance(result, Tensor):
        result = [result]
    elif not isinstance(result, (list, tuple)) or op == "tolist":
        return Answer(op, module, line, value=result)
    return Answer(op, module, line, None, tuple(tuple(t.shape) for t in result), tuple(t.dtype for t in result))
