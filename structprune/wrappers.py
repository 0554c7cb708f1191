"""Takes a network out of the wrappers that frameworks put around it."""

from __future__ import annotations

from torch import Tensor, jit, nn
from torch.nn.parameter import is_lazy

from .errors import ModelError
from .modules import walk

# Classes that run one module and add nothing to what it computes, by name, as most come with packages that may be
# missing here; and the attribute that holds the module.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "DistributedDataParallelCPU": "module",
    "DeepSpeedEngine": "module",
    "OptimizedModule": "_orig_mod",
}
_SHARDED = ("FullyShardedDataParallel", "FSDPModule")
_QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized", "bitsandbytes.")


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns `model`, or the module inside it if it is a DataParallel, a DistributedDataParallel or a compiled module.

    Raises:
        ModelError: the module, or one inside it, can't be read: it is scripted or traced, or its parameters are split
            over processes, have no shape yet or are packed by quantisation. The message says what to give instead.
    """
    while True:
        if not isinstance(model, nn.Module):
            raise ModelError(f"the model is a {type(model).__name__}: give an nn.Module")
        inner = next((_WRAPPERS[name] for name in _classes(model) if name in _WRAPPERS), None)
        if inner is None:
            break
        model = getattr(model, inner)
    for path, module in walk(model):
        reason = _reason(module)
        if reason:
            where = f"its module {path} ({type(module).__name__})" if path else "it"
            raise ModelError(f"{type(model).__name__} can't be looked into: {where} {reason}")
    return model


def _classes(module: nn.Module) -> list[str]:
    return [cls.__name__ for cls in type(module).__mro__]


def _reason(module: nn.Module) -> str:
    if isinstance(module, jit.ScriptModule):
        return "is scripted or traced (torch.jit): give the module that it was made from"
    if "OptimizedModule" in _classes(module):
        return "is compiled (torch.compile): prune the network with the plain module there, and compile the slim one"
    if any(name in _SHARDED for name in _classes(module)):
        return "has its parameters split over processes (FSDP): give the plain module, before it was sharded"
    if type(module).__module__.startswith(_QUANTISED):
        return "is quantised: prune the network in floating point first, then quantise the slim one"
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is None:
            continue
        if is_lazy(tensor):
            return f"has lazy parameters or buffers without a shape ({name}): run it once on real inputs first"
        if _is_quantised(tensor):
            return f"has a quantised tensor ({name}): prune the network in floating point first"
    return ""


def _is_quantised(tensor: Tensor) -> bool:
    return tensor.is_quantized or type(tensor).__module__.startswith(("torchao.", "bitsandbytes."))
