"""A checkpoint of training: weights, buffers, the state of the optimiser and of methods, in one file.

The file is one of safetensors. States may be nested as they like, of tensors and plain values: the tensors are stored
one by one, and what is around them as JSON in the file's metadata. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import StoreError
from ..modules import tensors
from ..store import atomic_files

_ON_DEVICE = "tensor on the device"  # of a state: it goes where the network is, others stay on the CPU


def store(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int, methods: Sequence[Any] = ()
) -> None:
    """Writes the state after `epochs` epochs, with those of training methods.

    Raises StoreError for a state that can't be written as plain data.
    """
    held = {f"model.{key}": tensor.detach().cpu().contiguous() for key, tensor in tensors(model).items()}
    state: list[Tensor] = []
    plain = [_plain(optimizer.state_dict(), state, "the optimizer"), _plain(methods, state, "a training method")]
    held |= {f"state.{i}": tensor.detach().cpu().contiguous().clone() for i, tensor in enumerate(state)}
    metadata = {"epochs": str(epochs), "state": json.dumps(plain)}
    atomic_files.write(path, lambda aside: save_file(held, aside, metadata))


def check_plain(state: Any, who: str) -> None:
    """Raises StoreError, which names `who`, for a state that can't be written as plain data."""
    _plain(state, [], who)


def store_state(path: Path, state: Any, who: str) -> None:
    """Writes a state by itself. Raises StoreError, which names `who`, for one that can't be written as plain data."""
    held: list[Tensor] = []
    metadata = {"state": json.dumps(_plain(state, held, who))}
    arrays = {f"state.{i}": tensor.detach().cpu().contiguous().clone() for i, tensor in enumerate(held)}
    atomic_files.write(path, lambda aside: save_file(arrays, aside, metadata))


def read_state(path: Path) -> Any:
    """The state that `store_state` has written, on the CPU."""
    with safe_open(path, "pt") as stored:
        return _state(json.loads(stored.metadata()["state"]), lambda _, index: stored.get_tensor(f"state.{index}"))


def restore(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    take: Callable[[list[Any]], None] = lambda methods: None,
) -> int:
    """Loads a checkpoint if there is one, and gives `take` the states of methods. Returns the number of epochs done."""
    if not path.is_file():
        return 0
    with safe_open(path, "pt") as stored, torch.no_grad():
        metadata = stored.metadata()
        for key, tensor in tensors(model).items():
            tensor.copy_(stored.get_tensor(f"model.{key}"))
        device = next((tensor.device for tensor in tensors(model).values()), None)

        def tensor_of(kind: str, index: int) -> Tensor:
            tensor = stored.get_tensor(f"state.{index}")
            return tensor.to(device) if kind == _ON_DEVICE else tensor

        state, methods = (_state(part, tensor_of) for part in json.loads(metadata["state"]))
        optimizer.load_state_dict(state)
        take(methods)
    return int(metadata["epochs"])


def _plain(value: Any, held: list[Tensor], who: str) -> Any:
    """`value` as JSON can hold it; its tensors are added to `held`."""
    if isinstance(value, Tensor):
        held.append(value)
        return {"tensor" if value.device.type == "cpu" else _ON_DEVICE: len(held) - 1}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(key, held, who), _plain(item, held, who)] for key, item in value.items()]}
    if isinstance(value, (tuple, list)):
        return {type(value).__name__: [_plain(item, held, who) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value  # JSON has Python's numbers in full, infinities too
    raise StoreError(f"{who} keeps a {type(value).__name__}, which can't be stored as plain data: choose another")


def _state(plain: Any, tensor: Any) -> Any:
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    if kind in ("tensor", _ON_DEVICE):
        return tensor(kind, value)
    if kind == "dtype":
        return getattr(torch, value)
    if kind == "dict":
        return {_state(key, tensor): _state(item, tensor) for key, item in value}
    items = [_state(item, tensor) for item in value]
    return tuple(items) if kind == "tuple" else items
