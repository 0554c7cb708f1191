"""Runs a model once on meta tensors and records the ATen ops that it calls, as an FX graph."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import ModelError, OtherSizeError
from ..modules import plain_attention, plain_parallel, replace_tensors, set_attributes, skeleton_copy, tensors
from ..process_state import seeded, silent_warnings
from .answers import Answer, Question, Scenario
from .caches import apart, emptied
from .conditions import Condition
from .inputs import Inputs, outputs
from .provenance import remember
from .recorder import Listener, Recorder

_TORCH = os.path.dirname(torch.__file__) + os.sep
_NORMS = os.path.join("timm", "layers", "norm_act.py")  # BatchNorms that do no more than PyTorch's
_EVALUATION = Scenario()


@dataclass(frozen=True)
class Captured:
    """One recorded forward pass.

    `parameters` maps a placeholder's name to the state_dict key of the parameter or buffer that it stands
    for. Each call's node carries `meta["val"]` (the meta tensor or tensors that it made), `meta["module"]`, the path
    of the module that called it, `meta["native"]`, whether that is PyTorch's own, and `meta["line"]`, the line of code.
    `conditions` are the comparisons of sizes and attributes that the code made, `questions` what it asked tensors for,
    `reads_mode` says that code outside PyTorch looked whether it trains, `unknown` is the question about a value at
    which the recording stopped, as the scenario has no answer. To record once more in the same way, give `inputs`
    and `scenario`.
    """

    graph: fx.Graph
    parameters: dict[str, str]
    conditions: list[Condition]
    questions: list[Question]
    inputs: Inputs
    scenario: Scenario
    reads_mode: bool = False
    unknown: str = ""

    @property
    def calls(self) -> list[fx.Node]:
        return [node for node in self.graph.nodes if node.op == "call_function"]


def capture(model: nn.Module, inputs: Inputs) -> Captured:
    """Records a model's forward pass in evaluation mode. Nothing is computed, and the model is left as it was.

    Only where the code asks tensors for values, a copy runs once on `inputs` as they are.

    Args:
        model: The model.
        inputs: Example inputs.

    Returns:
        The recorded pass.

    Raises:
        ModelError: The model can't run on `inputs`.
    """
    captured, error = follow(model, inputs, Scenario())
    if error is not None:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs.flat() if isinstance(x, Tensor))
        raise ModelError(
            f"{type(model).__name__} could not run on its example input of shape {shapes}: {error.rstrip('.')}. "
            "Give inputs that model(...) accepts"
        )
    return captured


def follow(model: nn.Module, inputs: Inputs, scenario: Scenario) -> tuple[Captured, str | None]:
    """What `record` records, with the real example's answers where the code asks for them.

    Raises ModelError if it asks and the model can't run on the example.
    """
    captured, error = record(model, inputs, scenario=scenario)
    if not captured.unknown:
        return captured, error
    try:
        answers = listen(model, inputs, scenario)
    except Exception as raised:
        raise ModelError(
            f"{type(model).__name__} asks for the values of tensors, first by {captured.unknown}, and can't run on its "
            f"example to know them: {_one_line(raised)}"
        ) from raised
    return record(model, inputs, scenario=replace(scenario, answers=answers))


def listen(model: nn.Module, inputs: Inputs, scenario: Scenario) -> tuple[Answer, ...]:
    """What the code asks tensors for when a copy of `model` runs on `inputs`. Raises whatever the model raises."""
    state = tensors(model)
    if any(x.is_meta for x in (*state.values(), *inputs.flat()) if isinstance(x, Tensor)):
        raise ModelError("the model or its example has no values (meta tensors)")
    copy = skeleton_copy(model, buffers=False).train(scenario.training)
    plain_attention(copy)
    plain_parallel(copy)
    replace_tensors(copy, {key: tensor.detach().clone() for key, tensor in state.items()})
    device = next((tensor.device for tensor in state.values()), torch.device("cpu"))
    listener = Listener(copy, scenario)
    with silent_warnings(), torch.set_grad_enabled(scenario.training), seeded():
        inputs.map(lambda x: x.detach().to(device, copy=True)).call_under(listener, copy)
    return tuple(listener.heard)


def record(
    model: nn.Module,
    inputs: Inputs,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    scenario: Scenario = _EVALUATION,
) -> tuple[Captured, str | None]:
    """What `capture` records, up to the first error, and that error in one line (None if there is none).

    With `shapes` and `attributes`, the model is run as if those parameters and modules had them. Where the code asks
    for what `scenario` has no answers to, that is the error, and `unknown` of what was recorded says so too.
    """
    original, model = model, meta_copy(model, shapes or {}).train(scenario.training)
    set_attributes(model, attributes or {})
    remember(model, original)
    recorder = Recorder(model, scenario)
    placeholders = {recorder.enter(key, tensor).name: key for key, tensor in tensors(model).items()}
    error: str | None = None
    mode = _ModeReads()
    try:
        with (
            silent_warnings(),
            torch.set_grad_enabled(scenario.training),
            seeded() if scenario != _EVALUATION else nullcontext(),
            mode,
            apart(model, scenario.anew),
        ):
            if scenario.anew:
                emptied(model)
            if scenario.first is not None:
                earlier = Recorder(model, scenario)
                scenario.first.map(lambda x: x.detach().to("meta")).call_under(earlier, model)
            call = inputs.map(lambda x: recorder.enter("input", x.detach().to("meta")))
            call = inputs.rebuild([x.meta["val"] if isinstance(x, fx.Node) else x for x in call.flat()])
            result = call.call_under(recorder, model)
        outputs(result)  # raises for what can't be looked into
        recorder.graph.output(_nested(result, recorder))
    except Exception as raised:  # whatever the user's forward raises
        if isinstance(raised, ModelError) and not isinstance(raised, OtherSizeError):  # a graph form is traced again
            raise
        error = _one_line(raised)
    unknown = recorder.answers.unknown
    if unknown:
        error = f"it asks there for the values of tensors, by {unknown}"
    answers, conditions = recorder.answers.questions, recorder.conditions
    return Captured(recorder.graph, placeholders, conditions, answers, inputs, scenario, mode.happened, unknown), error


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class _ModeReads:
    """Notes, inside `with`, whether code outside PyTorch looks if it trains: by `training` of any module but
    BatchNorms, or by `torch.is_grad_enabled()`."""

    def __init__(self) -> None:
        self.happened = False
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        def read(module: nn.Module) -> bool:
            self._notice(sys._getframe(1))
            try:
                return module.__dict__["training"]
            except KeyError:
                raise AttributeError("training") from None

        def enabled() -> bool:
            self._notice(sys._getframe(1))
            return self._enabled()

        def write(module: nn.Module, value: bool) -> None:
            module.__dict__["training"] = value

        self._training, self._enabled = nn.Module.__dict__.get("training"), torch.is_grad_enabled
        nn.Module.training = property(read, write)  # type: ignore[assignment]
        torch.is_grad_enabled = enabled

    def _notice(self, frame: Any) -> None:
        file = frame.f_code.co_filename
        own = threading.get_ident() == self._thread  # other threads see the same numbers, and are none of its business
        if own and not file.startswith(_TORCH) and not file.endswith(_NORMS):
            self.happened = True

    def __exit__(self, *_: object) -> None:
        torch.is_grad_enabled = self._enabled
        if self._training is None:
            del nn.Module.training
        else:
            nn.Module.training = self._training


def _nested(value: Any, recorder: Recorder) -> Any:
    """The nodes of an output in plain tuples, lists and dicts, as `outputs` flattens them."""
    if isinstance(value, Tensor):
        return recorder.node_of(value)
    if isinstance(value, Mapping):
        return {key: _nested(item, recorder) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_nested(item, recorder) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value if isinstance(value, (int, float, str, type(None))) else None


def meta_copy(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A copy in evaluation mode whose parameters and buffers have no storage, some of them in other shapes."""
    copy = skeleton_copy(model, buffers=False).eval()
    plain_attention(copy)
    plain_parallel(copy)
    state = tensors(copy)
    replace_tensors(
        copy, {k: torch.empty(shapes.get(k, t.shape), dtype=t.dtype, device="meta") for k, t in state.items()}
    )
    return copy
