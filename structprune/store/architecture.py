"""Describes a module tree as JSON and builds it again, without calling any constructor of the user's.

For each module: its class (by import path), its attributes, its hooks of known kinds, and which of its parameters and
buffers stand under which key in the weights file. What an attribute may be is in `value_kinds`. Anything else is
refused with its name when it is saved: the network is saved all the same, and `load` then needs a dense instance.

A description is data that may come from anywhere. `admission` says what it may name; building calls nothing of it,
and puts nothing in a place where a forward pass would call it that is not admitted. Hooks on `state_dict` and
`load_state_dict` are left out, as is what frameworks hang on a module and make again themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import StoreError
from . import layer_sizes
from .admission import FOREIGN, INTERNAL, Admission, check_attribute, name_of, recomputed
from .decoding import Decoder
from .encoding import Encoder
from .hooks import HOOKS, hooked, read_hook, register_outputs, write_hook

_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")


def describe(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description of `model` and the tensors it refers to. Raises StoreError for what can't be described."""
    first = _Writer(model, frozenset())
    try:
        done = first.run()
        twice = frozenset(first.values.twice)  # what occurs twice: only now is it known where it occurs first
        return _Writer(model, twice).run() if twice else done
    except RecursionError as error:
        raise StoreError(f"{type(model).__name__} is nested too deeply to be described") from error


class _Writer:
    def __init__(self, model: nn.Module, repeated: frozenset[int]) -> None:
        self.model = model
        self.paths = {id(module): name for name, module in model.named_modules()}
        self.admission = Admission()
        self.values = Encoder(self.admission, self.paths, self.free_tensor, self.hidden, repeated)
        self.tensors: dict[str, Tensor] = {}
        self.keys: dict[int, str] = {}
        self.name = type(model).__name__

    def run(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        for path, module in self.model.named_modules():
            self.admit(module, path)
        return self.module(self.model, ""), self.tensors

    def admit(self, module: nn.Module, path: str) -> str:
        cls = _class_of(module)
        name = name_of(cls, f"the class of {path or 'the model'}")
        try:
            self.admission.module_class(name)
        except StoreError as error:
            raise StoreError(f"{path or 'the model'}: {error}") from error
        return name

    def module(self, module: nn.Module, path: str) -> dict[str, Any]:
        if self.paths[id(module)] != path:
            return {"same_as": self.paths[id(module)]}
        for name in _BACKWARD:
            if getattr(module, name, None):
                raise StoreError(f"{path or 'the model'} has hooks ({name}), which can't be saved: remove them first")
        layer_sizes.check(module, path)
        description = {
            "class": self.admit(module, path),
            "parametrized": _parametrized(module),
            "training": module.training,
            "attributes": {k: self.attribute(module, k, v, path) for k, v in _attributes(module).items()},
            "parameters": {key: self.tensor(value, path, key) for key, value in module._parameters.items()},
            "buffers": {key: self.tensor(value, path, key) for key, value in module._buffers.items()},
            "transient": sorted(module._non_persistent_buffers_set),
            "hooks": self.hooks(module, path),
            "modules": {
                key: None if child is None else self.module(child, f"{path}.{key}".lstrip("."))
                for key, child in module._modules.items()
            },
        }
        return {key: value for key, value in description.items() if value or key not in ("parametrized", "hooks")}

    def attribute(self, module: nn.Module, name: str, value: Any, path: str) -> Any:
        check_attribute(_class_of(module), name, value)
        return self.values.value(value, f"{path}.{name}".lstrip("."))

    def hooks(self, module: nn.Module, path: str) -> dict[str, Any]:
        hooks = {}
        for kind in HOOKS:
            entries = [write_hook(self.values, module, kind, number, path) for number in getattr(module, kind)]
            if kept := [entry for entry in entries if entry is not None]:
                hooks[kind] = kept
        return hooks

    def hidden(self, module: nn.Module, where: str) -> Any:
        """Describes a module that only an attribute holds, in a list or by way of `object.__setattr__`."""
        for name, inner in module.named_modules():
            self.paths.setdefault(id(inner), f"{where}.{name}".rstrip("."))
            self.admit(inner, where)
        return [self.paths[id(module)], self.module(module, self.paths[id(module)])]

    def free_tensor(self, tensor: Tensor, where: str) -> Any:
        return self.tensor(tensor, where, "$value")

    def tensor(self, tensor: Tensor | None, path: str, name: str) -> Any:
        if tensor is None:
            return None
        where = f"{path}.{name}".lstrip(".").removesuffix(".$value")
        if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or tensor.layout != torch.strided:
            raise StoreError(f"{where} is a {type(tensor).__name__} of layout {tensor.layout}, which can't be saved")
        if tensor.is_meta or tensor.is_quantized:
            raise StoreError(f"{where} is a {'meta' if tensor.is_meta else 'quantized'} tensor, which can't be saved")
        key = self.keys.setdefault(id(tensor), f"{path}.{name}".lstrip("."))
        self.tensors[key] = tensor.detach()
        return {"key": key, "trains": tensor.requires_grad and isinstance(tensor, nn.Parameter)}


def _class_of(module: nn.Module) -> type[nn.Module]:
    """The class of a module, before torch gave it properties for its parametrisations."""
    cls = type(module)
    if cls.__module__ == parametrize.__name__ and cls.__name__.startswith("Parametrized"):
        return cls.__bases__[0]  # type: ignore[no-any-return]
    return cls


def _parametrized(module: nn.Module) -> list[str]:
    return list(module.parametrizations) if _class_of(module) is not type(module) else []  # type: ignore[arg-type]


def _attributes(module: nn.Module) -> dict[str, Any]:
    """A module's `__dict__`, without what can be computed from the rest."""
    cls = _class_of(module)
    left_out = INTERNAL | FOREIGN | hooked(module) | (layer_sizes.FLAT if isinstance(module, nn.RNNBase) else set())
    return {key: v for key, v in module.__dict__.items() if key not in left_out and not recomputed(cls, key)}


def build(description: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """The module that `description` describes, holding `weights`. Raises StoreError if it can't be built."""
    try:
        return _Reader(weights).run(description)
    except StoreError as error:
        raise StoreError(_line(error)) from error
    except Exception as error:  # what is not of the right kind may fail anywhere
        raise StoreError(
            f"the architecture in plan.json can't be built: {type(error).__name__}: {_line(error)}"
        ) from error


def _line(error: Exception) -> str:
    """A message on one line, shortened if what it quotes is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else f"{text[:400]} … {text[-99:]}"


class _Reader:
    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights
        self.tensors: dict[str, Tensor] = {}
        self.modules: dict[str, nn.Module] = {}
        self.open: set[str] = set()  # modules whose children are being made
        self.later: list[tuple[nn.Module, str, dict[str, Any]]] = []
        self.admission = Admission()
        self.values = Decoder(self.admission, self.modules, self.free_tensor, self.hidden)

    def run(self, description: dict[str, Any]) -> nn.Module:
        model = self.module(description, "", None)
        self.finish()
        return model

    def finish(self) -> None:
        """Sets attributes and hooks, once every module that they may name exists."""
        waiting, self.later = self.later, []
        for module, _, node in waiting:
            for name, value in node["attributes"].items():
                held = self.values.value(value)
                check_attribute(_class_of(module), name, held)
                module.__dict__[name] = held
            for kind, entries in node.get("hooks", {}).items():
                for entry in entries:
                    read_hook(self.values, module, kind, entry)
        for module, path, _ in waiting:
            register_outputs(module)
            layer_sizes.check(module, path)
            if isinstance(module, nn.RNNBase):
                layer_sizes.connect(module)

    def module(self, node: dict[str, Any], path: str, parent: nn.Module | None) -> nn.Module:
        if "same_as" in node:
            if node["same_as"] in self.open:
                raise StoreError(f"plan.json puts {path} into itself")
            return self.modules[node["same_as"]]
        if path in self.modules:
            raise StoreError(f"plan.json describes {path} twice")
        cls = self.admission.module_class(node["class"])
        layer_sizes.check_place(cls, parent, path)
        module = nn.Module.__new__(cls)
        module.__dict__.update(nn.Module().__dict__)
        module.training = bool(node["training"])
        self.modules[path] = module
        self.open.add(path)
        self.later.append((module, path, node))
        for name, entry in node["parameters"].items():
            module._parameters[_part(name)] = None if entry is None else self.parameter(entry)
        for name, entry in node["buffers"].items():
            module._buffers[_part(name)] = None if entry is None else self.free_tensor(entry)
        module._non_persistent_buffers_set.update(name for name in node["transient"] if name in module._buffers)
        for name, child in node["modules"].items():
            inner = f"{path}.{_part(name)}".lstrip(".")
            module._modules[name] = None if child is None else self.module(child, inner, module)
        self.open.discard(path)
        if node.get("parametrized"):
            _parametrize(module, node["parametrized"])
        return module

    def hidden(self, body: Any) -> nn.Module:
        path, node = body
        waiting, self.later = self.later, []
        module = self.module(node, path, None)
        self.finish()
        self.later = waiting
        return module

    def parameter(self, entry: dict[str, Any]) -> nn.Parameter:
        tensor = self.tensors.get(entry["key"])
        if not isinstance(tensor, nn.Parameter):
            tensor = self.tensors[entry["key"]] = nn.Parameter(self.stored(entry), requires_grad=bool(entry["trains"]))
        return tensor

    def free_tensor(self, entry: dict[str, Any]) -> Tensor:
        if entry["trains"]:
            return self.parameter(entry)
        return self.tensors.setdefault(entry["key"], self.stored(entry))

    def stored(self, entry: dict[str, Any]) -> Tensor:
        if entry["key"] not in self.weights:
            raise StoreError(
                f"slim.safetensors has no tensor {entry['key']}: the folder's files do not belong together"
            )
        return self.weights[entry["key"]]


def _part(name: Any) -> str:
    if not isinstance(name, str) or not name or "." in name or name.startswith("__"):
        raise StoreError(f"plan.json names a part of a module {name!r}, which is not a valid name")
    return name


def _parametrize(module: nn.Module, names: list[str]) -> None:
    """Gives a module torch's properties for parametrised tensors, whose lists are among its children already."""
    lists = module._modules.get("parametrizations")
    for name in names:
        check_attribute(type(module), name, 0)
        inner = None if lists is None else lists._modules.get(name)
        is_stored = name in module._parameters or name in module._buffers or name in module._modules
        if not isinstance(inner, parametrize.ParametrizationList) or is_stored or hasattr(type(module), name):
            raise StoreError(f"plan.json calls {name} parametrised, and holds no list of parametrisations for it")
    if not isinstance(lists, nn.ModuleDict) or hasattr(type(module), "parametrizations"):
        raise StoreError("plan.json holds parametrisations in something that is not an nn.ModuleDict")
    parametrize._inject_new_class(module)
    for name in names:
        parametrize._inject_property(module, name)
