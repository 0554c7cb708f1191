"""torch.compile: a module as one graph, compiled once for a runtime."""

from __future__ import annotations

from typing import Any

import torch

from ...errors import ModelError
from ...modules import tensors
from ..engine import ENGINES, Network
from ..runtime import Runtime
from .torch_eager import Eager, TorchEager, torch_version


class TorchCompile(TorchEager):
    """Modules as torch.compile makes them."""

    name = "torch.compile"
    description = "modules in PyTorch, compiled as one graph"

    def version(self, device: str) -> str:
        """torch's default is not to freeze weights (TORCHINDUCTOR_FREEZING=1 does): that makes another engine of it."""
        import torch._inductor.config as inductor

        return torch_version("compiled with frozen weights" if inductor.freezing else "compiled", device)

    def open(self, source: Network, runtime: Runtime) -> Eager:
        """Compiled once for a `Network` and a runtime; opened again, it gets other memory for its weights."""
        eager = source.kept.get(runtime)
        if eager is None:
            eager = source.kept[runtime] = _compiled(source, runtime)
        for tensor in tensors(eager.model).values():
            tensor.data = tensor.data.clone()
        return eager


def _compiled(network: Network, runtime: Runtime) -> Eager:
    """A network that has run once. Raises ModelError for one that can't be compiled."""
    eager = Eager(network, runtime)
    model = eager.model

    def forward(*args: Any, **kwargs: Any) -> Any:
        return model(*args, **kwargs)

    # Dynamo keeps what it has compiled by the code object, eight at most, and then runs eagerly without a word
    forward.__code__ = forward.__code__.replace()
    eager.call = torch.compile(forward, dynamic=False, fullgraph=True)
    try:
        eager.run()
    except Exception as error:  # whatever Dynamo, inductor or the C++ compiler raise
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"{type(network.model).__name__} can't be compiled by torch.compile as one graph "
            f"({type(error).__name__}: {lines[0][:200]}): time it on torch instead"
        ) from error
    return eager


ENGINES.add(TorchCompile())
