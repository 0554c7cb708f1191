"""Hooks of known kinds: torch's own (weight_norm, spectral_norm, masks of pruning), timm's feature hooks, and methods
or functions that a saved network may name."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import (
    SpectralNorm,
    SpectralNormLoadStateDictPreHook,
    SpectralNormStateDictHook,
)
from torch.nn.utils.weight_norm import WeightNorm

from ..errors import StoreError
from .admission import check_attribute
from .decoding import Decoder
from .encoding import Encoder
from .layer_sizes import check_weight_norm

HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_FLAGS = {
    "_forward_pre_hooks": {"kwargs": "_forward_pre_hooks_with_kwargs"},
    "_forward_hooks": {"kwargs": "_forward_hooks_with_kwargs", "always": "_forward_hooks_always_called"},
}
_REMADE = "transformers.utils.output_capturing"  # set up again by a model's first forward pass
_TORCHS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)


def hooked(module: nn.Module) -> set[str]:
    """The attributes that torch's hooks work out before each forward pass."""
    return {_target(hook) for hook in module._forward_pre_hooks.values() if isinstance(hook, _TORCHS)}


def _target(hook: Any) -> str:
    return str(hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name)


def write_hook(values: Encoder, module: nn.Module, kind: str, number: int, path: str) -> dict[str, Any] | None:
    """One hook of a module as data, None if the model sets it up again. Raises StoreError for unknown kinds."""
    hook = getattr(module, kind)[number]
    if getattr(hook, "__module__", "") == _REMADE:
        return None
    flags = {flag: True for flag, store in _FLAGS[kind].items() if number in getattr(module, store)}
    if isinstance(hook, WeightNorm):
        return {"weight_norm": [hook.name, hook.dim]}
    if isinstance(hook, SpectralNorm):
        return {"spectral_norm": [hook.name, hook.dim, hook.n_power_iterations, hook.eps]}
    if isinstance(hook, prune.BasePruningMethod):
        return {"mask": [hook._tensor_name]}
    where = f"a hook of {path or 'the model'}"
    if _is_feature_hook(hook):
        return {"features": [values.value(hook.func.__self__, where), values.value(hook.args[0], where)], **flags}
    try:
        return {"call": values.value(hook, where), **flags}
    except StoreError as error:
        raise StoreError(f"{path or 'the model'} has hooks ({kind}) of an unknown kind: {error}") from error


def register_outputs(module: nn.Module) -> None:
    """Tells transformers which outputs the model's class records, as the model's constructor does."""
    outputs, class_ = sys.modules.get(_REMADE), type(module)
    registry, base = getattr(outputs, "_CAN_RECORD_REGISTRY", None), sys.modules.get("transformers.modeling_utils")
    if registry is not None and base is not None and issubclass(class_, base.PreTrainedModel):
        registry[module] = class_._can_record_outputs  # type: ignore[attr-defined]


def _is_feature_hook(hook: Any) -> bool:
    method = getattr(hook, "func", None)
    known = _feature_hooks()
    return (
        type(hook) is functools.partial
        and isinstance(method, types.MethodType)
        and type(method.__self__) is known
        and method.__func__ is known._collect_output_hook  # type: ignore[attr-defined]
        and len(hook.args) == 1
        and not hook.keywords
    )


def _feature_hooks() -> Any:
    return getattr(sys.modules.get("timm.models._features"), "FeatureHooks", None)


def read_hook(values: Decoder, module: nn.Module, kind: str, entry: dict[str, Any]) -> None:
    """Registers a hook that `write_hook` wrote. Raises StoreError for what may not be a hook."""
    if kind not in HOOKS:
        raise StoreError(f"plan.json holds hooks of the kind {kind!r}")
    flags = {key: value for key, value in entry.items() if key in ("kwargs", "always")}
    ((what, body),) = ((key, value) for key, value in entry.items() if key not in flags)
    if what in _READERS and kind == "_forward_pre_hooks":
        check_attribute(type(module), body[0], 0.0)
        if body[0] in module._parameters or body[0] in module._buffers or body[0] in module._modules:
            raise StoreError(f"plan.json works out {body[0]} by a hook, and holds it as well")
        with torch.no_grad():
            norm = _READERS[what](module, *body)
        nn.Module.register_forward_pre_hook(module, norm)
        return
    if what == "features":
        record = values.value(body[0])
        if _feature_hooks() is None or type(record) is not _feature_hooks():
            raise StoreError("plan.json collects features in something that is not timm's FeatureHooks")
        number = values.value(body[1])
        hook: Callable[..., Any] = functools.partial(record._collect_output_hook, number)
    elif what == "call":
        hook = values.value(body)
        plain = hook.func if isinstance(hook, functools.partial) else hook
        if not isinstance(plain, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
            raise StoreError(f"plan.json registers {hook!r} as a hook, which is not a function")
    else:
        raise StoreError(f"plan.json holds a hook of unknown kind {what!r}")
    _register(module, kind, hook, flags)


def _register(module: nn.Module, kind: str, hook: Callable[..., Any], flags: dict[str, Any]) -> None:
    if kind == "_forward_pre_hooks":
        nn.Module.register_forward_pre_hook(module, hook, with_kwargs=bool(flags.get("kwargs")))
    else:
        always, kwargs = bool(flags.get("always")), bool(flags.get("kwargs"))
        nn.Module.register_forward_hook(module, hook, with_kwargs=kwargs, always_call=always)


def _weight_norm(module: nn.Module, name: str, dim: Any) -> WeightNorm:
    hook = WeightNorm(name, -1 if dim is None else int(dim))
    g, v = _own(module, f"{name}_g", f"{name}_v")
    check_weight_norm(g, v, hook.dim)
    module.__dict__[name] = hook.compute_weight(module)
    return hook


def _spectral_norm(module: nn.Module, name: str, dim: int, iterations: int, eps: float) -> SpectralNorm:
    _own(module, f"{name}_orig", f"{name}_u", f"{name}_v")
    if not 0 <= int(iterations) <= 1000:
        raise StoreError(f"plan.json asks for {iterations} power iterations")
    hook = SpectralNorm(name, int(iterations), int(dim), float(eps))
    module.__dict__[name] = hook.compute_weight(module, do_power_iteration=False)
    nn.Module._register_state_dict_hook(module, SpectralNormStateDictHook(hook))
    nn.Module._register_load_state_dict_pre_hook(module, SpectralNormLoadStateDictPreHook(hook))
    return hook


def _mask(module: nn.Module, name: str) -> prune.BasePruningMethod:
    """Whatever method made the mask, it is applied in the same way."""
    _own(module, f"{name}_orig", f"{name}_mask")
    hook = prune.Identity()
    hook._tensor_name = name
    module.__dict__[name] = hook.apply_mask(module)
    return hook


def _own(module: nn.Module, *names: str) -> list[torch.Tensor]:
    """Tensors that are the module's parameters or buffers, and not properties of its class."""
    stored = [module._parameters.get(name, module._buffers.get(name)) for name in names]
    if any(tensor is None or hasattr(type(module), name) for tensor, name in zip(stored, names, strict=True)):
        raise StoreError(f"plan.json holds a hook on {names[0]}, which the module does not have")
    return stored  # type: ignore[return-value]


_READERS: dict[str, Callable[..., Any]] = {
    "weight_norm": _weight_norm,
    "spectral_norm": _spectral_norm,
    "mask": _mask,
}
