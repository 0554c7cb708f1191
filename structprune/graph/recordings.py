"""The ways in which a model's code can run: as on the example, in training mode, and where a value decides otherwise.

Each is recorded, and tracing joins them: what one way ties, or keeps, holds for all. The slim module's code then finds
its weights in order wherever it goes.
"""

from __future__ import annotations

import dis
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from .. import ops
from ..errors import ModelError
from ..modules import walk
from ..ops import Captured, Inputs, capture, op_name
from ..ops.answers import Answer, Flip, Scenario, short_line
from ..ops.forward_pass import follow, listen, record
from ..ops.provenance import Read, Size, leaves
from ..ops.record import record_of
from .batch_sizes import other_paths
from .trials import made_anew

_OTHERS = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, ops.__file__, __file__))

MOST_FLIPS = 16  # of one model: each costs a run, a recording and its analysis


@dataclass
class Recordings:
    """`main` is the forward pass in evaluation mode, `others` are the passes that do something else. `notes` says what
    a user should know of them. `unknown` says why there may be ways that nobody saw: then the parameters that no pass
    uses stay, with all that might enter them; `unseen` why other ways may use all of it, so that everything stays."""

    main: Captured
    others: list[Captured] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown: str = ""
    unseen: str = ""

    @property
    def all(self) -> list[Captured]:
        return [self.main, *self.others]

    def used(self) -> set[str]:
        """The keys of the parameters and buffers that some pass uses."""
        return {
            captured.parameters[node.name]
            for captured in self.all
            for node in captured.graph.nodes
            if node.op == "placeholder" and node.users and node.name in captured.parameters
        }

    def variances(self) -> set[str]:
        """The keys of the buffers that some pass normalises by, as the op's record tells; also as another dtype."""
        keys = set()
        for captured in self.all:
            for node in captured.calls:
                record = record_of(op_name(node.target))
                source = record.read(node, "variance") if record.takes("variance") else None
                while isinstance(source, fx.Node) and source.op == "call_function" and len(source.all_input_nodes) == 1:
                    source = source.all_input_nodes[0]
                if isinstance(source, fx.Node) and source.name in captured.parameters:
                    keys.add(captured.parameters[source.name])
        return keys


def record_passes(model: nn.Module, inputs: Inputs, form: str) -> Recordings:
    """Records the ways that `model` can go on `inputs`. In the graph form there is one way, which its program checks.

    Raises ModelError if the model can't run on `inputs` in evaluation mode.
    """
    recordings = Recordings(capture(model, inputs))
    if form == "graph":
        recordings.main = made_anew(model, recordings.main)
    recordings.others += other_paths(model, recordings.main, recordings.notes)
    _train(model, inputs, recordings, form)
    if recordings.main.questions:
        _decide(model, inputs, recordings, form)
    return recordings


# --- training mode ------------------------------------------------------------------------------------------


def _train(model: nn.Module, inputs: Inputs, recordings: Recordings, form: str) -> None:
    if not recordings.main.reads_mode and not any(_switches(module) for _, module in walk(model)):
        return
    error: str | None = ""
    for example in (inputs, _doubled(inputs)):  # BatchNorm refuses to train on one value a channel
        try:
            captured, error = follow(model, example, Scenario(training=True, label="t_"))
        except ModelError as refused:
            error = str(refused)
        if error is None:
            break
    if error is not None:
        recordings.notes.append(f"the code that runs in training mode could not be traced: {error}")
        recordings.unknown = "it runs other code in training, which could not be traced"
        return
    if _same(captured, recordings.main):
        return
    if form == "module":
        recordings.others.append(captured)
        return
    only = Recordings(recordings.main, [captured]).used() - recordings.used()
    if only:
        recordings.notes.append(
            f"the graph form runs evaluation's code in training too: {', '.join(sorted(only)[:4])} and the like, which "
            'only training uses, stay as they are and unused; form="module" trains them'
        )
    else:
        recordings.notes.append(
            "the graph form runs evaluation's code in training too, which is other code here (besides BatchNorm and "
            'dropout); form="module" runs training\'s'
        )


def _switches(module: nn.Module) -> bool:
    """Whether a module does something of its own when its mode changes."""
    return any(getattr(type(module), name) is not getattr(nn.Module, name) for name in ("train", "eval"))


def _doubled(inputs: Inputs) -> Inputs:
    """The inputs with each sample twice."""
    batch = next((len(x) for x in inputs.flat() if isinstance(x, Tensor) and x.dim()), 0)
    return inputs.map(lambda x: torch.cat([x, x]) if x.dim() and len(x) == batch else x)


def _same(a: Captured, b: Captured) -> bool:
    """Whether two passes make the same calls of the same tensors, and return them alike."""
    return _calls(a) == _calls(b)


def _calls(captured: Captured) -> list[Any]:
    nodes = [node for node in captured.graph.nodes if not _counts(node)]
    places = {node: i for i, node in enumerate(nodes)}
    return [
        (node.op, node.target if node.op == "call_function" else "", [places[p] for p in node.all_input_nodes])
        for node in nodes
    ]


def _counts(node: fx.Node) -> bool:
    """Whether a node is a BatchNorm's counting of batches; one that is called twice counts on from what it counted."""
    if node.op != "call_function" or node.target is not torch.ops.aten.add_.Tensor:
        return False
    counted: Any = node.args[0]
    value = counted.meta.get("val") if isinstance(counted, fx.Node) else None
    if value is None or value.dtype != torch.long or value.dim():
        return False
    return counted.op == "placeholder" or _counts(counted)


# --- what values decide -------------------------------------------------------------------------------------


def _decide(model: nn.Module, inputs: Inputs, recordings: Recordings, form: str) -> None:
    heard: dict[tuple[str, str], Answer] = {}
    for question in recordings.main.questions:
        heard.setdefault((question.answer.op, question.answer.line), question.answer)
    texts = [answer.text() for answer in heard.values()]
    elsewhere = "anything else is an error there" if form == "graph" else "the module goes on by its own code"
    recordings.notes += [
        f"control flow follows the example: {text}; {elsewhere}, and ONNX files hold this way" for text in texts
    ]
    if form == "graph":
        return
    waiting = [frozenset([flip]) for flip in dict.fromkeys(_flips(recordings.main))]
    known, tried = {flip for flips in waiting for flip in flips}, 0
    while waiting and tried < MOST_FLIPS:
        flips, tried = waiting.pop(0), tried + 1
        captured = _flip(model, inputs, recordings, flips, f"f{tried}_")
        new = [flip for flip in dict.fromkeys(_flips(captured)) if flip not in known] if captured else []
        known.update(new)  # what is decided only on that way
        waiting += [flips | {flip} for flip in new]
    if waiting:
        recordings.unseen = (
            f"its code decides by values in more than {MOST_FLIPS} ways, of which the others were not traced"
        )


def _flips(main: Captured) -> Iterator[Flip]:
    """Where the code could go another way, and how."""
    sized = [question for question in main.questions if question.answer.dtypes]
    counts = {size for question in sized for shape in question.answer.shapes for size in shape[:1]}
    reached = _reached(question.node for question in sized)
    for question in main.questions:
        answer = question.answer
        if answer.dtypes:
            yield Flip(answer.line, "zero" if any(shape and shape[0] for shape in answer.shapes) else "more")
        elif isinstance(answer.value, bool):
            yield Flip(answer.line)
        else:
            yield Flip(answer.line, "zero")
            yield Flip(answer.line, "more")
    for condition in main.conditions:
        for leaf in leaves(condition.test):
            if isinstance(leaf, Read) or (isinstance(leaf, Size) and leaf.node in reached and leaf.value in counts):
                yield Flip(condition.line)


def _reached(nodes: Iterator[fx.Node]) -> set[str]:
    waiting, reached = list(nodes), set()
    while waiting:
        node = waiting.pop()
        if node.name not in reached:
            reached.add(node.name)
            waiting += node.users
    return reached


def _flip(
    model: nn.Module, inputs: Inputs, recordings: Recordings, flips: frozenset[Flip], label: str
) -> Captured | None:
    """Records what the code does where the answers at some lines are others; None if that can't be seen."""
    scenario = Scenario(flips=flips, label=label)
    where = " and ".join(sorted(short_line(flip.line) for flip in flips))
    try:
        answers = listen(model, inputs, scenario)
    except Exception as error:
        if not _refuses(error) and all(
            flip.how == "not" for flip in flips
        ):  # another number may simply not fit the example
            recordings.unseen = f"the other branch at {where} could not be followed ({type(error).__name__}: {error})"
            recordings.notes.append(recordings.unseen)
        return None
    try:
        captured, failed = record(model, inputs, scenario=replace(scenario, answers=answers))
    except ModelError as refused:  # it returns there what can't be looked into
        captured, failed = recordings.main, str(refused)
    if failed is not None:
        recordings.unseen = f"the other branch at {where} could not be traced ({failed})"
        recordings.notes.append(recordings.unseen)
        return None
    if not any(_same(captured, other) for other in recordings.all):
        recordings.others.append(captured)
    return captured


def _refuses(error: BaseException) -> bool:
    """Whether the model's own code raised an error: then it refuses such values by itself."""
    trace: Any = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    own = not code.co_filename.startswith(_OTHERS)
    return isinstance(error, AssertionError) or (own and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS")
