"""Small tools on `nn.Module`: reading, copying and replacing tensors by their state_dict key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .copying import copied
from .errors import ModelError
from .module_numbers import write
from .process_state import shared


def walk(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The same as `named_modules`, in the same order, but without a generator inside a generator for each level."""
    visited: set[int] = set()
    entries: list[tuple[str, nn.Module]] = []
    waiting: list[tuple[str, nn.Module]] = [("", model)]
    while waiting:
        path, module = waiting.pop()
        if id(module) in visited:
            continue
        visited.add(id(module))
        entries.append((path, module))
        head = path + "." if path else ""
        children = [(head + name, child) for name, child in module._modules.items() if child is not None]
        waiting += reversed(children)
    return entries


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by its path; a tensor with several names only under the first."""
    parameters: dict[int, tuple[str, Tensor]] = {}
    buffers: dict[int, tuple[str, Tensor]] = {}
    for path, module in walk(model):  # once, where named_parameters and named_buffers walk twice
        prefix = path + "." if path else ""
        for by_id, own in ((parameters, module._parameters), (buffers, module._buffers)):
            for name, tensor in own.items():
                if tensor is not None:
                    by_id.setdefault(id(tensor), (prefix + name, tensor))
    return dict([*parameters.values(), *buffers.values()])


def skeleton_copy(model: nn.Module, buffers: bool = True) -> nn.Module:
    """A copy of modules, attributes and buffers that shares every parameter with the original.

    Buffers are its own, as some models write to them when they run, unless `buffers` is False: then they are shared
    too. What a framework hung on the modules stays behind (see `copying`). Raises ModelError if an attribute can't be
    copied.
    """
    shared = model.parameters() if buffers else tensors(model).values()
    try:
        return copied(model, {id(tensor): tensor for tensor in shared})
    except Exception as error:  # whatever an attribute's own copying raises
        detail = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{type(model).__name__} can't be copied ({type(error).__name__}: {detail}): an attribute holds a tensor "
            "with a gradient history, a lock or the like. Clear it first"
        ) from error


def replace_tensors(model: nn.Module, new: Mapping[str, Tensor]) -> None:
    """Replaces parameters and buffers, under every name that they have.

    Replaces them too where plain attributes hold them, directly or in lists, tuples and dicts.
    """
    old = tensors(model)
    swap = {id(old[key]): _like(old[key], tensor) for key, tensor in new.items()}
    for _, module in walk(model):
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None and id(tensor) in swap:
                    store[name] = swap[id(tensor)]  # type: ignore[assignment]
        for name, value in vars(module).items():
            if name not in _INTERNAL and isinstance(value, (Tensor, list, tuple, dict)):
                module.__dict__[name] = _swapped(value, swap)


_INTERNAL = frozenset(vars(nn.Module()))


def own_copy(model: nn.Module) -> nn.Module:
    """A copy with tensors of its own: what is done to it is not done to the model."""
    copy = skeleton_copy(model)
    replace_tensors(copy, {key: tensor.detach().clone() for key, tensor in tensors(model).items()})
    return copy


def _swapped(value: Any, swap: Mapping[int, Tensor]) -> Any:
    """The same value, or a container of its kind, with tensors replaced."""
    if isinstance(value, Tensor):
        return swap.get(id(value), value)
    if type(value) in (list, tuple):
        items = [_swapped(item, swap) for item in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else type(value)(items)
    if type(value) is dict:
        for key, item in value.items():
            value[key] = _swapped(item, swap)
    return value


def _like(old: Tensor, new: Tensor) -> Tensor:
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new.detach(), requires_grad=old.requires_grad)
    return new.detach()


def set_attributes(model: nn.Module, attributes: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes `{module path: {number: value}}` (see `module_numbers`); a list goes into a tuple as a tuple."""
    modules = dict(walk(model))
    for path, values in attributes.items():
        for name, value in values.items():
            write(modules[path], name, value)


def plain_attention(model: nn.Module) -> None:
    """Turns off timm's fused attention, which takes its scale from the channels of a head and ignores `scale`."""
    for _, module in walk(model):
        if getattr(module, "fused_attn", False):
            module.__dict__["fused_attn"] = False


def plain_parallel(model: nn.Module) -> None:
    """Makes DataParallel parts run their module where it is, as on a machine without a GPU."""
    for _, module in walk(model):
        if isinstance(module, nn.DataParallel):
            module.device_ids = []


@contextmanager
def plain_transformers() -> Iterator[None]:
    """Turns off the fused ops that `nn.MultiheadAttention` runs in evaluation mode, which exporters do not know."""
    with shared("fast path of attention", _without_fast_path):
        yield


def _without_fast_path() -> Callable[[], None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    return lambda: torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Puts a model into evaluation mode, without gradients; every module's mode is restored at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, mode in modes:
            module.training = mode
