"""Small tools on `nn.Module`: reading, copying and replacing tensors by their state_dict key."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by its path; a tensor that has several names comes once, under the first."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def skeleton_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules and their attributes that shares every parameter and buffer with the original."""
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


def replace_tensors(model: nn.Module, new: Mapping[str, Tensor]) -> None:
    """Puts other tensors in the place of parameters and buffers, under every name that they have."""
    old = tensors(model)
    swap = {id(old[key]): _like(old[key], tensor) for key, tensor in new.items()}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None and id(tensor) in swap:
                    store[name] = swap[id(tensor)]  # type: ignore[assignment]


def _like(old: Tensor, new: Tensor) -> Tensor:
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new.detach(), requires_grad=old.requires_grad)
    return new.detach()


def set_attributes(model: nn.Module, attributes: Mapping[str, Mapping[str, int]]) -> None:
    """Writes `{module path: {attribute: value}}`."""
    modules = dict(model.named_modules())
    for path, values in attributes.items():
        for name, value in values.items():
            setattr(modules[path], name, value)


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode without gradients; every module's mode is put back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, mode in modes:
            module.training = mode
