"""What a saved network may name: admission by list, the same for writing and for reading.

A description comes from anywhere, so it may only pick among code that is here already, and only among code that
computes. Assume that whoever wrote it knows every class of every package that is imported, and wants one of them
to be called with arguments of their choice:

- **Modules**: classes of `torch.nn`, timm and `structprune.networks`, and other `nn.Module` subclasses that the user's
  code has imported. Not those that run code given as data (scripted modules, `fx.GraphModule`) or wrap others for
  several devices.
- **Functions**: the list in `pure_functions`. Beyond it only functions, classes and methods of the user's own package
  that `__init__` or `forward` of one of the network's own classes refers to by name, as in `self.act = my_swish`: then
  the class itself hands the function to its forward pass. With arguments bound (`functools.partial`) these take numbers
  alone, never a string, so no path, address or command reaches a function that was not listed. A method has
  `forward` in its name, or `__init__` refers to it, and is never one of `nn.Module`'s.
- **Records** (configs, boxes' coders, feature tables): instances of classes of the packages of the network's own
  classes, never of the standard library or torch. They are made without `__init__`, `__new__` or `__setstate__`. A
  class with `__del__` is refused, one with `__call__` needs to be named in `__init__` or `forward` as above.
- **Attributes**: a name that the class defines is taken: no method, property, descriptor or `__dunder__` can be hidden.
  Plain values may stand over the class's own plain values, and over those of `nn.Module`'s methods that nothing calls
  in a forward pass (`type`, `half`), as some networks have. `forward` may be another `forward…` method of the module.
"""

from __future__ import annotations

import abc
import enum
import functools
import importlib
import inspect
import sys
import types
from collections import OrderedDict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, MutableMapping, Sized
from typing import Any, Generic, Protocol

import torch
from torch import nn

from ..errors import StoreError
from . import pure_functions as pure

ADVICE = "import the code that defines the model first{}, or pass a dense instance, load(folder, model=...)"
INTERNAL = frozenset(nn.Module().__dict__)
# Hung on a module by frameworks, and made anew by them: neither written nor read.
FOREIGN = frozenset(
    ["_is_hf_initialized", "_compiled_call_impl", "_output_capturing_hooks_installed", "_is_accelerate_prepared"]
)
_MODULE_HOMES = (
    *("torch.nn.modules.", "torch.nn.utils.parametrize.", "torch.nn.utils.parametrizations."),
    *("timm.models.", "timm.layers.", "structprune.networks."),
)
# Packages that import their parts when these are asked for: once the user has imported the package, so does reading.
_LAZY = (
    *("transformers.models.", "transformers.generation.", "transformers.activations.", "transformers.pytorch_utils."),
    *("transformers.configuration_utils.", "transformers.modeling_utils.", "transformers.backbone_utils."),
    *("diffusers.models.", "diffusers.configuration_utils."),
)
_CLOSED = frozenset(["torch", "timm", "structprune", "accelerate", "numpy", "builtins", *sys.stdlib_module_names])
_RUNNERS: tuple[type, ...] = (
    *(torch.jit.ScriptModule, torch.fx.GraphModule),
    *(nn.DataParallel, nn.parallel.DistributedDataParallel),
)
# Methods of nn.Module that nothing calls in a forward pass, in eval(), train() or state_dict().
HIDEABLE = frozenset(
    [
        *("type", "half", "float", "double", "bfloat16", "cpu", "cuda", "ipu", "xpu", "mtia"),
        *("to_empty", "compile", "share_memory", "extra_repr"),
    ]
)
# What a record may be built on.
_BASES: frozenset[Any] = frozenset(
    [
        *(object, dict, OrderedDict, tuple, abc.ABC, Generic, Protocol),
        *(Mapping, MutableMapping, Sized, Iterable, Container, Collection),
    ]
)
_local: dict[str, type] = {}  # classes made inside functions, for reading back in the same process


class Admission:
    """Admits what a saved network names, given the modules' classes that it has admitted so far."""

    def __init__(self) -> None:
        self.packages: set[str] = set()
        self._mentioned: dict[int, Any] = {}

    def module_class(self, name: str) -> type[nn.Module]:
        """Returns the class of a module. Raises StoreError if it may not be named."""
        cls = self._resolve(name)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise StoreError(f"{name}, named as the class of a module, is not an nn.Module")
        home = f"{cls.__module__}."
        if _package(cls) in _CLOSED and not home.startswith(_MODULE_HOMES):
            raise StoreError(f"{name} is neither a layer of torch.nn or timm nor a class of the model's own")
        if issubclass(cls, _RUNNERS):
            raise StoreError(f"{name} runs or wraps other code, which a description can't hold: save what is inside")
        if _package(cls) not in _CLOSED:
            self.packages.add(_package(cls))
            for function in _own_code(cls, "__init__", "forward"):
                self._mentioned.update(_mentions(function, _package(cls)))
        return cls

    def callable(self, name: str) -> Any:
        """Returns a function or class that a forward pass may call. Raises StoreError if it may not be named."""
        value = pure.function(name)
        if value is not None:
            return value
        value = self._resolve(name)
        if isinstance(value, type) and issubclass(value, nn.Module) and _package(value) in ("torch", "timm"):
            return self.module_class(name)
        if self._mentioned.get(id(value)) is value and isinstance(value, (type, types.FunctionType)):
            return value
        raise StoreError(
            f"{name} is neither one of the functions that saved networks may name nor one that __init__ or forward of "
            "the model's own classes refers to"
        )

    def listed(self, value: Any) -> bool:
        """Whether a callable may get any arguments: it is in the list, or a layer of torch or timm."""
        return pure.name_of(value) is not None or (isinstance(value, type) and _package(value) in ("torch", "timm"))

    def method(self, module: nn.Module, name: str) -> types.FunctionType:
        """Returns a method that an attribute may hold, bound to `module`. Raises StoreError if it may not be named."""
        cls = type(module)
        function = _static(cls, name)
        if isinstance(function, types.FunctionType) and not name.startswith("__"):
            if "forward" in name:
                return function
            code = [c for f in _own_code(cls, "__init__") for c in _codes(f.__code__)]
            if _static(nn.Module, name) is None and any(name in c.co_names for c in code):
                return function
        raise StoreError(f"{cls.__qualname__}.{name} is not a method that a saved network may name")

    def record(self, name: str) -> type:
        """Returns a class whose instances are records of data. Raises StoreError if it may not be named."""
        cls = self._resolve(name)
        if not isinstance(cls, type) or issubclass(cls, (nn.Module, type, BaseException)):
            raise StoreError(f"{name} is not a class of records")
        if _package(cls) not in self.packages | {"timm"}:
            raise StoreError(f"{name} is outside the packages of the model's own classes")
        for base in cls.__mro__:
            if base not in _BASES and _package(base) in _CLOSED - {"timm"}:
                raise StoreError(f"{name} is more than a record: its base {base.__module__}.{base.__qualname__}")
        if _static(cls, "__del__") is not None:
            raise StoreError(f"{name} has a __del__, so it is not a record of data")
        if _static(cls, "__call__") is not None and self._mentioned.get(id(cls)) is not cls:
            raise StoreError(f"{name} can be called, and __init__ and forward of the model's classes do not name it")
        return cls

    def enumeration(self, name: str) -> type[enum.Enum]:
        """Returns an enum of the model's packages, torch or timm. Raises StoreError if it may not be named."""
        cls = self._resolve(name)
        if not (isinstance(cls, type) and issubclass(cls, enum.Enum)):
            raise StoreError(f"{name} is not an enum")
        if _package(cls) not in self.packages | {"torch", "timm"}:
            raise StoreError(f"{name} is outside the packages of the model's own classes")
        return cls

    def _resolve(self, name: str) -> Any:
        if name in _local:
            return _local[name]
        module, _, qualified = name.partition(":")
        if _may_import(module):
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise StoreError(f"{name} can't be imported here ({error}): {ADVICE.format('')}") from error
        value: Any = sys.modules.get(module)
        for part in qualified.split("."):
            value = None if part.startswith("__") else _static(value, part)
        if value is None:
            raise StoreError(f"{name} is not defined here: {ADVICE.format(_by_import(module))}")
        if (getattr(value, "__module__", None), getattr(value, "__qualname__", None)) != (module, qualified):
            raise StoreError(f"{name} is another name for what is defined elsewhere")
        return value


def _by_import(module: str) -> str:
    """The import to type, if the module has a plain name: a stranger's file may name anything."""
    return f" (import {module})" if all(part.isidentifier() for part in module.split(".")) else ""


def _may_import(module: str) -> bool:
    """Whether reading imports a module by itself: layers of torch and timm, and parts of what is imported already."""
    if f"{module}.".startswith(_LAZY):
        return module.partition(".")[0] in sys.modules and not module.rpartition(".")[2].startswith(("convert", "__"))
    return f"{module}.".startswith(_MODULE_HOMES)


def name_of(value: type | types.FunctionType, where: str) -> str:
    """The name by which a class or function can be looked up. Raises StoreError if it has none."""
    name = f"{value.__module__}:{value.__qualname__}"
    if "<locals>" in name and isinstance(value, type):
        name = f"{name}#{id(value)}"  # a function may make many classes of one name
        _local[name] = value
        return name
    if "<lambda>" in name or "<locals>" in name:
        raise StoreError(f"{where} is {value!r}, which can't be imported by name (a lambda, or defined in a function)")
    holder: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        holder = _static(holder, part)
    if holder is not value:
        raise StoreError(f"{where} is {value!r}, which can't be imported by name")
    return name


def check_attribute(cls: type, name: Any, value: Any) -> None:
    """Raises StoreError if an attribute would stand in the way of what the class, or torch, defines."""
    message = f"{cls.__qualname__}.{name} hides a method or an internal field, which can't be saved"
    module = issubclass(cls, nn.Module)
    if not isinstance(name, str) or name.startswith("__") or (module and name in INTERNAL | FOREIGN):
        raise StoreError(message)
    defined = _static(cls, name, _NOTHING)
    if defined is _NOTHING or isinstance(defined, types.MemberDescriptorType):  # a slot
        return
    if module and name in nn.Module.__dict__ | {"forward": None}:
        own = _static(nn.Module, name) is defined  # else the class has its own, which may be called
        fine = name == "forward" and _is_forward(value)
        if not fine and not (own and name in HIDEABLE and _inert(value)):
            raise StoreError(message)
    elif defined is not None and not (_inert(defined) and _inert(value)):
        raise StoreError(message)


def recomputed(cls: type, name: str) -> bool:
    """Whether an attribute is the stored value of a `cached_property`, which can be computed again."""
    return isinstance(_static(cls, name), functools.cached_property)


def _is_forward(value: Any) -> bool:
    while isinstance(value, functools.partial):
        value = value.func
    return isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module)


def _inert(value: Any, depth: int = 0) -> bool:
    """Whether a value is data: nothing in it can be called, and it is not a descriptor."""
    if isinstance(value, (list, tuple, set, frozenset)) and depth < 20:
        return all(_inert(item, depth + 1) for item in value)
    if isinstance(value, dict) and depth < 20:
        return all(_inert(item, depth + 1) for item in value.values())
    return not callable(value) and not hasattr(type(value), "__get__")


def is_closed(cls: type) -> bool:
    """Whether a class is of the standard library, torch or another package whose objects are not records."""
    return _package(cls) in _CLOSED - {"timm"}


def _package(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "torch").partition(".")[0]


_NOTHING = object()


def _static(owner: Any, name: str, default: Any = None) -> Any:
    """What a module or class itself holds under a name, without running its code; its submodules do not count."""
    if isinstance(owner, type):
        return next((vars(base)[name] for base in owner.__mro__ if name in vars(base)), default)
    value = vars(owner).get(name, default) if isinstance(owner, types.ModuleType) else default
    return default if isinstance(value, types.ModuleType) else value


def _own_code(cls: type, *names: str) -> Iterator[types.FunctionType]:
    """Methods of these names that the class or its bases outside torch define, and what decorators wrapped."""
    for base in cls.__mro__:
        for name in names if _package(base) not in _CLOSED - {"timm"} else ():
            function = vars(base).get(name)
            if isinstance(function, types.FunctionType):
                yield inspect.unwrap(function)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _mentions(function: types.FunctionType, package: str) -> dict[int, Any]:
    """The functions and classes of `package` that a function refers to, as globals or in modules that are globals."""
    mentioned: dict[int, Any] = {}
    for code in _codes(function.__code__):
        for name in code.co_names:
            value = function.__globals__.get(name)
            inner = [vars(value).get(n) for n in code.co_names] if isinstance(value, types.ModuleType) else []
            for each in (value, *inner):
                if isinstance(each, (type, types.FunctionType)) and _package(each) == package:
                    mentioned[id(each)] = each
    return mentioned
