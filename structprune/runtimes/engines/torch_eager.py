"""torch, eagerly: a module runs as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...modules import replace_tensors, skeleton_copy, tensors
from ..engine import ENGINES, Engine, Network, Running
from ..runtime import Runtime


class Eager:
    """A copy of a module, in evaluation mode, with memory of its own."""

    def __init__(self, network: Network, runtime: Runtime) -> None:
        device = torch.device(runtime.device)
        model = skeleton_copy(network.model).eval()
        replace_tensors(model, {key: _own(tensor, device) for key, tensor in tensors(model).items()})
        self.model = model.to(device)
        self.call: Callable[..., Any] = self.model
        self._cuda = device.type == "cuda"
        self._inputs = network.inputs.map(lambda x: _batch(x, runtime.batch).to(device))

    def run(self) -> Any:
        with torch.inference_mode():
            result = self.call(*self._inputs.args, **self._inputs.kwargs)
        if self._cuda:
            torch.cuda.synchronize()
        return result


class TorchEager(Engine):
    """Modules in torch as they are."""

    name = "torch"
    description = "modules in PyTorch, eagerly"
    files = False
    devices = ("cpu", "cuda")

    def version(self, device: str) -> str:
        return torch_version("eager", device)

    def missing(self, device: str) -> str:
        if device == "cpu" or torch.cuda.is_available():
            return ""
        return "torch finds no CUDA device: install a CUDA build on a machine with a GPU, or set device to cpu"

    def open(self, source: Any, runtime: Runtime) -> Running:
        return Eager(source, runtime)


def torch_version(kind: str, device: str) -> str:
    where = f" on {torch.cuda.get_device_name()}" if device == "cuda" else ""
    return f"torch {torch.__version__} {kind}{where}"


def _own(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy without denormals: `set_flush_denormal` is for the calling thread alone, and not for torch's pool."""
    copy = tensor.detach().to(device, copy=True)
    if copy.dtype in (torch.float32, torch.float64):
        copy[copy.abs() < torch.finfo(copy.dtype).tiny] = 0
    return copy


def _batch(x: Tensor, batch: int) -> Tensor:
    """Its samples (axis 0), again from the first on until there are `batch`."""
    return x[torch.arange(batch) % len(x)] if x.dim() else x


ENGINES.add(TorchEager())
