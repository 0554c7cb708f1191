"""Copies modules: with what belongs to a module, and without what a framework attached to it.

Frameworks keep what they know of a network in the `__dict__` of its modules: marks ("this one is prepared"), hooks, a
`forward` in the place of the class's own, compiled calls. A copy with them would be taken for prepared and never moved
to a device or wrapped for several processes, or would run the network that it was copied from. What belongs to a
module is decided by these rules:

1. A class that defines how its instances are copied (`__deepcopy__`, `__getstate__`, `__reduce__`) is copied that way.
2. The names that frameworks are known to write (`MARKS`) stay behind, and a `forward` that was put in the place of
   another is traced back to it.
3. Hooks stay behind if their code lies in the package of a framework (`FRAMEWORKS`): they move, gather and watch the
   tensors of that one instance. All others may have a part in what the network computes, and belong to it: those of
   weight_norm and spectral_norm, those that a model's own code registers, those of its user.
4. Everything else is copied. A function that holds the network (a patched `forward`, a hook that is a lambda) would go
   on to run the original, so that it is made anew around the copy. Other objects of frameworks are shared: they hold
   process groups and locks.
"""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

FRAMEWORKS = (
    *("accelerate", "apex", "colossalai", "composer", "deepspeed", "fairscale", "horovod", "ignite", "lightning"),
    *("lightning_fabric", "megatron", "pytorch_lightning", "transformer_engine", "wandb"),
    *("torch._dynamo", "torch._inductor", "torch.distributed", "torch._C._distributed_c10d", "torch.nn.parallel"),
    *("torch.profiler", "torch.autograd.profiler", "torch.utils.tensorboard"),
)
MARKS = frozenset(
    {
        *("_is_accelerate_prepared", "_original_forward", "_old_forward", "_hf_hook", "hf_device_map"),  # accelerate
        *("_compiled_call_impl", "_is_replica", "_is_fsdp_managed_module", "_fsdp_use_orig_params"),  # torch
    }
)
_DISPATCHED = ("to", "cpu", "cuda", "npu", "xpu", "mlu", "sdaa", "musa")  # what accelerate's dispatch_model replaces
_HOOKS = {  # where hooks are held, and what torch notes of them beside
    "_forward_pre_hooks": ("_forward_pre_hooks_with_kwargs",),
    "_forward_hooks": ("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    "_backward_pre_hooks": (),
    "_backward_hooks": (),
    "_state_dict_pre_hooks": (),
    "_state_dict_hooks": (),
    "_load_state_dict_pre_hooks": (),
    "_load_state_dict_post_hooks": (),
}
_FLAT = (int, float, bool, str, type(None), torch.dtype, torch.device, type)


def copied(module: nn.Module, memo: dict[int, Any]) -> Any:
    """Copies a module and all that it holds, without what a framework attached to them.

    `memo` is `copy.deepcopy`'s: what is in it by its id counts as copied. Raises whatever copying an attribute raises.
    """
    copier = _Copier(module, memo)
    for part in copier.modules:
        copier.fill(part)
    for value in list(memo.values()):
        if isinstance(value, nn.Module) and id(value) not in copier.clean:  # which deepcopy made
            release(value)
    return memo[id(module)]


def release(module: nn.Module) -> None:
    """Removes from one module, in place, what frameworks attached to it."""
    own = _belongs(module)
    for name in [name for name in module.__dict__ if name not in own]:
        del module.__dict__[name]
    for name, value in own.items():
        if module.__dict__[name] is not value:
            module.__dict__[name] = value


class _Copier:
    """Copies the modules that can be reached from one, each first as an empty shell, so that all may refer to all."""

    def __init__(self, module: nn.Module, memo: dict[int, Any]) -> None:
        self.memo, self.modules = memo, list(module.modules())
        self.inside = {id(part) for part in self.modules}
        self.filled: set[int] = set()
        self.clean: set[int] = set()
        self.held: list[dict[str, Any]] = []
        for part in self.modules:
            kind: Any = type(part)
            self.inside.update(id(buffer) for buffer in part._buffers.values() if buffer is not None)
            if id(part) not in memo and not _copies_itself(kind):
                shell = memo[id(part)] = kind.__new__(kind)
                self.clean.add(id(shell))

    def fill(self, module: nn.Module) -> None:
        if id(module) in self.filled:
            return
        self.filled.add(id(module))
        cls: Any = type(module)
        memo = self.memo
        if _copies_itself(cls):
            for part in reversed(list(module.modules())[1:]):
                self.fill(part)  # which its own copying may look into
            memo[id(module)] = copy.deepcopy(module, memo)
            return
        target, own = memo[id(module)].__dict__, _belongs(module)
        self.held.append(own)  # an id in the memo stands for one thing only while that thing lives
        for name, value in own.items():
            if name == "_modules":
                for child in value.values():
                    if child is not None and id(child) not in memo:
                        self.fill(child)
                target[name] = type(value)(
                    (k, None if child is None else memo[id(child)]) for k, child in value.items()
                )
            elif name in ("_parameters", "_buffers"):
                target[name] = type(value)(
                    (key, memo[id(t)] if id(t) in memo else copy.deepcopy(t, memo)) for key, t in value.items()
                )
            else:
                target[name] = value if isinstance(value, _FLAT) else self.value(value)

    def value(self, value: Any) -> Any:
        """An attribute's copy."""
        if id(value) in self.memo:
            return self.memo[id(value)]
        kind, memo = type(value), self.memo
        if isinstance(value, _FLAT):
            return value
        if kind in (dict, OrderedDict, set) and not value:
            memo[id(value)] = kind()  # one for all that share it: one may fill it, and another read
            return memo[id(value)]
        if kind is tuple:
            return value if all(isinstance(item, _FLAT) for item in value) else tuple(map(self.value, value))
        if kind is types.FunctionType:
            return self.function(value)
        if kind is types.MethodType:
            return types.MethodType(self.value(value.__func__), self.value(value.__self__))
        if isinstance(value, nn.Module):  # in a list, or as its parent's plain attribute
            return copied(value, memo)
        if kind is weakref.ref:
            return weakref.ref(memo[id(value())]) if id(value()) in memo else value
        if kind is list:  # deepcopy would take the functions in it as they are
            items: list[Any] = []
            memo[id(value)] = items
            items.extend(map(self.value, value))
            return items
        if kind in (dict, OrderedDict):
            container = memo[id(value)] = kind()
            container.update((self.value(key), self.value(item)) for key, item in value.items())
            return container
        if kind is functools.partial:
            part = functools.partial(self.value(value.func), *self.value(value.args), **self.value(value.keywords))
            part.__dict__.update(self.value(vars(value)))
            return part
        return value if _named(kind.__module__) else copy.deepcopy(value, memo)

    def function(self, function: types.FunctionType) -> types.FunctionType:
        """Returns the function itself or, or, if it leads to the network, one of the same code with copies."""
        if not self.holds(function, set()):
            return function
        cells = function.__closure__
        empty = None if cells is None else tuple(types.CellType() for _ in cells)
        twin = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, empty)
        self.memo[id(function)] = twin  # before its cells are filled, as it may hold itself
        for old, new in zip(cells or (), empty or (), strict=True):
            content = _content(old)
            if content is not _EMPTY:
                new.cell_contents = self.mine(content)
        twin.__defaults__, twin.__kwdefaults__ = self.mine(function.__defaults__), self.mine(function.__kwdefaults__)
        twin.__dict__.update({name: self.mine(held) for name, held in vars(function).items()})
        twin.__qualname__, twin.__module__, twin.__doc__ = function.__qualname__, function.__module__, function.__doc__
        return twin

    def mine(self, held: Any) -> Any:
        """Copies a value that a function holds if it leads to the network; else returns it as it is."""
        return self.value(held) if self.holds(held, set()) else held

    def holds(self, value: Any, visited: set[int]) -> bool:
        """Whether a function, or what it holds, leads to a module or a buffer that is copied here."""
        if id(value) in self.inside:
            return True
        if id(value) in visited or isinstance(value, (nn.Module, Tensor, *_FLAT)):
            return False
        visited.add(id(value))
        return any(self.holds(item, visited) for item in _inner(value))


@functools.cache
def _copies_itself(cls: Any) -> bool:
    """Whether a class defines how it is copied. `__setstate__` of torch's own modules does not count: it adds
    attributes that files of older versions lack. Nor does the one that stands around it once anything was compiled."""
    if any(hasattr(cls, name) for name in ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__")):
        return True
    if not cls.__setstate__.__module__.startswith(("torch.nn.", "torch._dynamo.")):  # type: ignore[attr-defined]
        return True
    usual = (nn.Module, object)
    return any(
        all(getattr(cls, name, None) is not getattr(base, name, None) for base in usual)
        for name in ("__getstate__", "__reduce__", "__reduce_ex__")
    )


def _belongs(module: nn.Module) -> dict[str, Any]:
    """The entries of a module's `__dict__` that are its own."""
    state = module.__dict__
    own = dict(state) if MARKS.isdisjoint(state) else {k: v for k, v in state.items() if k not in MARKS}
    if len(own) < len(state) and ("_hf_hook" in state or "hf_device_map" in state):
        own = {name: value for name, value in own.items() if name not in _DISPATCHED}
    if "forward" in own:
        forward = _first_forward(state)
        if forward is None or _is_bound(forward, type(module).forward, module):
            del own["forward"]
        else:
            own["forward"] = forward
    for name, notes in _HOOKS.items():
        held = own.get(name)
        foreign = [key for key, hook in held.items() if _of_framework(hook)] if held else []
        if foreign:
            for kept in (name, *notes):
                own[kept] = type(own[kept])((k, v) for k, v in own[kept].items() if k not in foreign)
    for hook in (own.get("_forward_pre_hooks") or {}).values():
        computed = _computed_by(hook)
        if isinstance(own.get(computed), Tensor) and own[computed].grad_fn is not None:
            own[computed] = own[computed].detach()  # each call computes it anew
    return own


def _computed_by(hook: Any) -> str:
    """The attribute that weight_norm, spectral_norm or pruning by masks computes before each call."""
    if isinstance(hook, (WeightNorm, SpectralNorm)):
        return str(hook.name)
    return str(hook._tensor_name) if isinstance(hook, BasePruningMethod) else ""


def _first_forward(state: dict[str, Any]) -> Any:
    """The instance's own `forward` before frameworks replaced it; None if that was the class's."""
    forward = state["forward"]
    if hasattr(
        forward, "_torchdynamo_orig_callable"
    ):  # torch.compile(module.forward), and a wrapper of its own in that
        forward = forward._torchdynamo_orig_callable
        while "_dynamo" in getattr(forward, "__code__", _first_forward.__code__).co_filename:
            forward = forward.__wrapped__
    if not _of_framework(forward):
        return forward
    before = [state[name] for name in ("_original_forward", "_old_forward") if name in state]
    return next((each for each in before if not _of_framework(each)), None)


def _is_bound(function: Any, of_class: Any, module: nn.Module) -> bool:
    return isinstance(function, types.MethodType) and function.__func__ is of_class and function.__self__ is module


def _of_framework(value: Any) -> bool:
    """Whether the code of a function, or the class of an object, is a framework's."""
    while True:
        if isinstance(value, functools.partial):
            value = value.func
        elif isinstance(value, types.MethodType):
            if _named(type(value.__self__).__module__):
                return True
            value = value.__func__
        elif isinstance(value, nn.modules.module._WrappedHook):
            value = value.hook
        else:
            break
    own = value if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)) else type(value)
    return _named(getattr(own, "__module__", None) or "")


@functools.cache
def _named(package: str) -> bool:
    return any(package == name or package.startswith(name + ".") for name in FRAMEWORKS)


_EMPTY = object()


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return _EMPTY


def _inner(value: Any) -> list[Any]:
    """What a function or a plain container holds."""
    if isinstance(value, types.FunctionType):
        cells = [_content(cell) for cell in value.__closure__ or ()]
        return [*cells, value.__defaults__, value.__kwdefaults__, *vars(value).values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if type(value) in (list, tuple):
        return list(value)
    return list(value.values()) if type(value) in (dict, OrderedDict) else []
