"""Describes a module tree as JSON and builds it again, without calling any constructor of the user's.

For each module: its class (by import path), its plain attributes, and which of its parameters and buffers
stand under which key in the weights file. Attributes may be numbers, strings, containers, dtypes, devices,
enums, dataclasses, tensors, modules of the same tree, and classes or functions by import path (as for
`self.act = F.relu`). Anything else is refused with its name.

A description is data that may come from anywhere, so building trusts it little. Modules must be `nn.Module`
classes; only torch's and timm's are imported, others must have been imported by the user's own code. Functions
come from torch's and timm's operators or from the packages of those classes. No attribute may stand in the way of
a method. Nothing is called while building; what forward calls is the model's own matter.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import math
import sys
import types
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import StoreError

_INTERNAL = frozenset(nn.Module().__dict__) | {"_is_hf_initialized"}
_OPERATORS = ("torch", "torch.nn.functional", "torch.nn.modules", "torch.nn.init", "torch._C", "math", "timm.layers")
_IMPORTED = ("torch", "timm")  # the packages that building may import
_local_classes: dict[str, type] = {}  # classes made inside functions, for reading back in the same process


def describe(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description of `model` and the tensors it refers to. Raises StoreError for what can't be described."""
    return _Writer(model).run()


class _Writer:
    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.paths = {id(module): name for name, module in model.named_modules()}
        self.tensors: dict[str, Tensor] = {}
        self.keys: dict[int, str] = {}

    def run(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return self.module(self.model, ""), self.tensors

    def module(self, module: nn.Module, path: str) -> dict[str, Any]:
        if self.paths[id(module)] != path:
            return {"same_as": self.paths[id(module)]}
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            if getattr(module, name, None):
                raise StoreError(f"{path or 'the model'} has hooks ({name}), which can't be saved: remove them first")
        cls = type(module)
        name = f"{cls.__module__}:{cls.__qualname__}"
        if "<locals>" in cls.__qualname__:
            name = f"{name}#{id(cls)}"  # a function may make many classes of one name
            _local_classes[name] = cls
        elif _find(name) is not cls:
            raise StoreError(f"{path or 'the model'}: its class {name} can't be imported under that name")
        return {
            "class": name,
            "training": module.training,
            "attributes": {
                _free_name(cls, key): self.value(value, f"{path}.{key}".lstrip("."))
                for key, value in module.__dict__.items()
                if key not in _INTERNAL
            },
            "parameters": {key: self.tensor(value, path, key) for key, value in module._parameters.items()},
            "buffers": {key: self.tensor(value, path, key) for key, value in module._buffers.items()},
            "transient": sorted(module._non_persistent_buffers_set),
            "modules": {
                key: None if child is None else self.module(child, f"{path}.{key}".lstrip("."))
                for key, child in module._modules.items()
            },
        }

    def tensor(self, tensor: Tensor | None, path: str, name: str) -> Any:
        if tensor is None:
            return None
        key = self.keys.setdefault(id(tensor), f"{path}.{name}".lstrip("."))
        self.tensors[key] = tensor.detach()
        return {"key": key, "trains": tensor.requires_grad}

    def value(self, value: Any, where: str) -> Any:
        if value is None or isinstance(value, (bool, str)) or type(value) is int:
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, enum.Enum):
            return {"$enum": [_import_name(type(value), where), value.name]}
        if isinstance(value, torch.Size):
            return {"$size": list(value)}
        if isinstance(value, dict) and type(value) in (dict, OrderedDict):
            pairs = [[self.value(k, f"{where}.key"), self.value(v, f"{where}[{k!r}]")] for k, v in value.items()]
            return {"$dict" if type(value) is dict else "$ordered_dict": pairs}
        for kind, tag in ((list, None), (tuple, "$tuple"), (set, "$set"), (frozenset, "$frozenset")):
            if type(value) is kind:
                items = [self.value(v, f"{where}[{i}]") for i, v in enumerate(value)]
                return items if tag is None else {tag: items}
        if isinstance(value, (torch.dtype, torch.device)):
            return {f"${type(value).__name__}": str(value).removeprefix("torch.")}
        if isinstance(value, slice):
            return {"$slice": [value.start, value.stop, value.step]}
        if isinstance(value, Tensor):
            return {"$tensor": self.tensor(value, where, "$value")}
        if isinstance(value, nn.Module) and id(value) in self.paths:
            return {"$module": self.paths[id(value)]}
        if isinstance(value, functools.partial):
            parts = [value.func, tuple(value.args), dict(value.keywords)]
            return {"$partial": [self.value(part, f"{where}.{i}") for i, part in enumerate(parts)]}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return {"$dataclass": [_import_name(type(value), where), self.value(fields, where)]}
        if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
            return {"$import": _import_name(value, where)}
        raise StoreError(
            f"{where} is a {type(value).__module__}.{type(value).__name__}, which can't be written as JSON"
        )


def _import_name(value: Any, where: str) -> str:
    module = getattr(value, "__module__", None) or "torch"
    for name in (f"{module}:{value.__qualname__}", f"torch:{value.__name__}", f"torch.nn.functional:{value.__name__}"):
        if _find(name) is value:
            return name
    raise StoreError(f"{where} is {value!r}, which can't be imported by name (a lambda, or defined in a function)")


def _find(name: str) -> Any:
    """What an import path stands for among the modules already imported; None if nothing does."""
    module, _, qualified = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
        if isinstance(found, types.ModuleType):
            return None  # what lies in another module has another name
    return found


def _free_name(cls: type, name: str) -> str:
    """The name of an attribute, unless it would stand in the way of a method or of nn.Module's own fields."""
    if name in _INTERNAL or name.startswith("__") or callable(getattr(cls, name, None)):
        raise StoreError(f"{cls.__qualname__}.{name} hides a method or an internal field, which can't be saved")
    return name


def build(description: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """The module that `description` describes, holding `weights`. Raises StoreError if it can't be built."""
    try:
        return _Reader(weights).run(description)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise StoreError(f"the architecture in plan.json can't be built: {type(error).__name__}: {error}") from error


class _Reader:
    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights
        self.made: dict[str, Tensor] = {}
        self.modules: dict[str, nn.Module] = {}
        self.later: list[tuple[nn.Module, dict[str, Any]]] = []
        self.packages: set[str] = set()

    def run(self, description: dict[str, Any]) -> nn.Module:
        model = self.module(description, "")
        for module, attributes in self.later:  # once every module that they may name exists
            module.__dict__.update({_free_name(type(module), k): self.value(v) for k, v in attributes.items()})
        return model

    def module(self, node: dict[str, Any], path: str) -> nn.Module:
        if "same_as" in node:
            return self.modules[node["same_as"]]
        cls = _local_classes.get(node["class"]) or self.imported(node["class"])
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise StoreError(f"{node['class']}, named as the class of {path or 'the model'}, is not an nn.Module")
        self.packages.add(cls.__module__.partition(".")[0])
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        self.modules[path] = module
        module.training = node["training"]
        for name, entry in node["parameters"].items():
            module._parameters[name] = None if entry is None else self.tensor(entry, nn.Parameter)  # type: ignore
        for name, entry in node["buffers"].items():
            module._buffers[name] = None if entry is None else self.tensor(entry, None)
        module._non_persistent_buffers_set.update(node["transient"])
        for name, child in node["modules"].items():
            inner = f"{path}.{name}".lstrip(".")
            module._modules[name] = None if child is None else self.module(child, inner)
        self.later.append((module, node["attributes"]))
        return module

    def tensor(self, entry: dict[str, Any], kind: type[nn.Parameter] | None) -> Tensor:
        key = entry["key"]
        if key not in self.made:
            if key not in self.weights:
                raise StoreError(f"slim.safetensors has no tensor {key}: the folder's files do not belong together")
            tensor = self.weights[key]
            self.made[key] = tensor if kind is None else kind(tensor, requires_grad=entry["trains"])
        return self.made[key]

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.value(v) for v in value]
        if not isinstance(value, dict):
            return value
        ((tag, body),) = value.items()
        if tag in ("$dict", "$ordered_dict"):
            pairs = [(self.value(k), self.value(v)) for k, v in body]
            return dict(pairs) if tag == "$dict" else OrderedDict(pairs)
        if tag in _CONTAINERS:
            return _CONTAINERS[tag](self.value(body))
        if tag == "$slice":
            return slice(*body)
        if tag == "$dtype":
            dtype = getattr(torch, body)
            if not isinstance(dtype, torch.dtype):
                raise StoreError(f"{body} is not a dtype")
            return dtype
        if tag == "$tensor":
            return self.tensor(body, None)
        if tag == "$module":
            return self.modules[body]
        if tag == "$enum":
            cls = self.allowed(body[0])
            if not (isinstance(cls, type) and issubclass(cls, enum.Enum)):
                raise StoreError(f"{body[0]} is not an enum")
            return cls[body[1]]
        if tag == "$dataclass":
            cls = self.allowed(body[0])
            if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
                raise StoreError(f"{body[0]} is not a dataclass")
            made = object.__new__(cls)
            for key, field in self.value(body[1]).items():
                object.__setattr__(made, key, field)
            return made
        if tag == "$partial":
            function, args, kwargs = (self.value(part) for part in body)
            return functools.partial(function, *args, **kwargs)
        if tag == "$import":
            return self.allowed(body)
        raise StoreError(f"plan.json holds a value of unknown kind {tag!r}")

    def allowed(self, name: str) -> Any:
        module = name.partition(":")[0]
        within = any(module == m or (m != "torch" and module.startswith(m + ".")) for m in _OPERATORS)
        packages = self.packages - set(_IMPORTED)
        if not within and module.partition(".")[0] not in packages and not module.startswith("timm."):
            raise StoreError(f"plan.json names {name}, which is outside the packages of the model's own classes")
        found = self.imported(name)
        home = getattr(found, "__module__", None) or "torch"
        if home.partition(".")[0] not in packages | {*_IMPORTED, "math", "_operator", "builtins"}:
            raise StoreError(f"plan.json names {name}, which belongs to {home} and not to the model's own packages")
        return found

    def imported(self, name: str) -> Any:
        module = name.partition(":")[0]
        if module.partition(".")[0] in _IMPORTED:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise StoreError(f"{name} can't be imported here ({error}): {_ADVICE}") from error
        found = _find(name)
        if found is None:
            raise StoreError(f"{name} is not defined here: {_ADVICE}")
        return found


_ADVICE = "import the code that defines the model first, or pass a dense instance, load(folder, model=...)"
_CONTAINERS: dict[str, Any] = {
    "$float": float,
    "$size": torch.Size,
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$device": torch.device,
}
