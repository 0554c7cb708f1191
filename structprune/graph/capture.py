"""Runs a model once on fake tensors and records the ATen ops that it calls, as an FX graph."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from ..errors import ModelError
from ..modules import skeleton_copy, tensors


@dataclass(frozen=True)
class Inputs:
    """The arguments of one forward call: a tensor, a tuple of arguments or a dict of keyword arguments."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, example: Any) -> Inputs:
        if isinstance(example, Inputs):
            return example
        if isinstance(example, Mapping):
            return cls((), dict(example))
        if isinstance(example, (tuple, list)):
            return cls(tuple(example), {})
        if isinstance(example, Tensor):
            return cls((example,), {})
        raise ModelError(
            f"example_inputs is a {type(example).__name__}; give a tensor, a tuple of arguments or a dict of "
            "keyword arguments"
        )

    def flat(self) -> list[Any]:
        return pytree.tree_flatten((self.args, self.kwargs))[0]

    def rebuild(self, flat: list[Any]) -> Inputs:
        _, spec = pytree.tree_flatten((self.args, self.kwargs))
        return Inputs(*pytree.tree_unflatten(flat, spec))

    def map(self, function: Any) -> Inputs:
        """The same arguments with `function` applied to every tensor."""
        return self.rebuild([function(x) if isinstance(x, Tensor) else x for x in self.flat()])

    def names(self, model: nn.Module) -> list[str]:
        """One name for each flat argument, from forward's signature where it has one."""
        try:
            parameters = list(inspect.signature(model.forward).parameters)
        except (TypeError, ValueError):
            parameters = []
        names: list[str] = []
        for position, value in enumerate(self.args):
            stem = parameters[position] if position < len(parameters) else f"input_{position}"
            leaves = len(pytree.tree_flatten(value)[0])
            names += [stem] if leaves == 1 else [f"{stem}_{i}" for i in range(leaves)]
        for key, value in self.kwargs.items():
            leaves = len(pytree.tree_flatten(value)[0])
            names += [key] if leaves == 1 else [f"{key}_{i}" for i in range(leaves)]
        return names

    def call(self, model: nn.Module) -> Any:
        return model(*self.args, **self.kwargs)


def outputs(value: Any) -> list[Tensor]:
    """The tensors of a model's output, in whatever tuples, lists and dicts they are nested.

    Raises ModelError for an output that can't be looked into: a tensor hidden in it would go unchecked.
    """
    leaves = pytree.tree_flatten(value)[0]
    for leaf in leaves:
        if not isinstance(leaf, (Tensor, bool, int, float, complex, str, type(None))):
            raise ModelError(
                f"forward returns a {type(leaf).__name__}, which can't be looked into: return tensors in tuples, lists "
                "or dicts, or wrap the model in a module that does"
            )
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


@dataclass(frozen=True)
class Captured:
    """One recorded forward pass.

    `parameters` maps a placeholder's name to the state_dict key of the parameter or buffer that it stands
    for. Each node carries `node.meta["module"]`, the path of the module that called it.
    """

    graph: fx.Graph
    parameters: dict[str, str]


def capture(model: nn.Module, inputs: Inputs) -> Captured:
    """Records `model`'s forward pass in evaluation mode; nothing is computed and `model` is left as it was.

    Raises ModelError if the model cannot run on `inputs`.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model is a {type(model).__name__}: give an nn.Module")
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise ModelError(
            f"{type(model).__name__} has lazy parameters without a shape: run it once on real inputs first"
        )
    captured, error = record(model, inputs)
    if captured is None or error is not None:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs.flat() if isinstance(x, Tensor))
        raise ModelError(
            f"{type(model).__name__} could not run on its example input of shape {shapes}: {error}. "
            "Give inputs that model(...) accepts, and the plain module (no DataParallel, no compiled or scripted one)"
        )
    return captured


def record(model: nn.Module, inputs: Inputs) -> tuple[Captured | None, str | None]:
    """What `capture` records, up to the first error, and that error in one line (None if there is none)."""
    model = skeleton_copy(model).eval()  # tracing may write attributes, and not into the user's modules
    state = tensors(model)
    keys = list(state)
    flat = inputs.flat()
    where = [i for i, value in enumerate(flat) if isinstance(value, Tensor)]
    stack = _ModuleStack(model)

    def forward(*arguments: Any) -> list[Tensor]:
        values = list(flat)
        for position, tensor in zip(where, arguments[len(keys) :], strict=True):
            values[position] = tensor
        call = inputs.rebuild(values)
        state = dict(zip(keys, arguments[: len(keys)], strict=True))
        result = torch.func.functional_call(model, state, call.args, call.kwargs)
        stack.stamp()
        return outputs(result)

    arguments = [*(tensor.detach() for tensor in state.values()), *(flat[i] for i in where)]
    tracer = make_fx(forward, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)
    error: str | None = None
    graph: fx.Graph | None = None
    try:
        with torch.no_grad(), stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = tracer(*arguments).graph
    except Exception as raised:  # whatever the user's forward raises
        graph = stack.graph
        lines = str(raised).strip().splitlines()
        error = f"{type(raised).__name__}: {lines[0]}" if lines else type(raised).__name__
    if graph is None:
        return None, error
    placeholders = [node.name for node in graph.nodes if node.op == "placeholder"]
    return Captured(graph, dict(zip(placeholders, keys, strict=False))), error


def op_name(target: Any) -> str:
    """An ATen op's name in the rule table: no overload, no mark of the in-place form, no `aten::`."""
    if not isinstance(target, torch._ops.OpOverload):
        return getattr(target, "__name__", str(target))
    namespace, name = target._schema.name.split("::")
    if name.endswith("_") and not name.startswith("__"):
        name = name[:-1]
    return name if namespace == "aten" else f"{namespace}::{name}"


class _ModuleStack:
    """Stamps each recorded node with the path of the module that was running when it was recorded."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.stack: list[str] = [""]
        self.handles: list[Any] = []
        self.graph: fx.Graph | None = None

    def stamp(self) -> None:
        mode = get_proxy_mode()
        if mode is None:
            return
        self.graph = mode.tracer.graph
        for node in reversed(mode.tracer.graph.nodes):
            if "module" in node.meta:
                break
            node.meta["module"] = self.stack[-1]

    def __enter__(self) -> _ModuleStack:
        for name, module in self.model.named_modules():
            self.handles.append(module.register_forward_pre_hook(self._enter(name)))
            self.handles.append(module.register_forward_hook(self._leave, always_call=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _enter(self, name: str) -> Any:
        def hook(*_: object) -> None:
            self.stamp()
            self.stack.append(name)

        return hook

    def _leave(self, *_: object) -> None:
        self.stamp()
        self.stack.pop()
