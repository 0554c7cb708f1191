"""Values to JSON (see `value_kinds`): plain ones, containers, and what a module refers to."""

from __future__ import annotations

import base64
import contextlib
import enum
import functools
import logging
import math
import pathlib
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import StoreError
from . import pure_functions as pure
from .admission import Admission, check_attribute, is_closed, name_of, recomputed
from .value_kinds import FIXED, MAPPINGS, MUTABLE, SEQUENCES, SPACES, TORCH, bindable


class Encoder:
    """Values to JSON. `modules` gives the path of a module of the tree, `tensor` and `hidden` write what they hold."""

    def __init__(
        self,
        admission: Admission,
        modules: dict[int, str],
        tensor: Callable[[Tensor, str], Any],
        hidden: Callable[[nn.Module, str], Any],
        repeated: frozenset[int],
    ) -> None:
        self.admission, self.modules, self.tensor, self.hidden = admission, modules, tensor, hidden
        self.repeated = repeated  # what occurred twice in a first pass
        self.met: dict[int, int] = {}
        self.twice: set[int] = set()

    def value(self, value: Any, where: str) -> Any:
        kind = type(value)
        if value is None or kind in (bool, str, int):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, enum.Enum):
            return {"$enum": [name_of(kind, where), value.name]}
        small = _small(value)
        if small is not None:
            return small
        if isinstance(value, MUTABLE):
            return self._shared(value, where)
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            name = name_of(kind, where)
            self.admission.record(name)
            return {"$named_tuple": [name, self._items(value, where)]}
        for tag, fixed in FIXED.items():
            if kind is fixed:
                return {tag: self._items(_in_order(value), where)}
        if isinstance(value, slice):
            return {"$slice": self._items([value.start, value.stop, value.step], where)}
        return self._held(value, where)

    def _items(self, values: Iterable[Any], where: str) -> list[Any]:
        return [self.value(v, f"{where}[{i}]") for i, v in enumerate(values)]

    def _pairs(self, values: dict[Any, Any], where: str) -> list[list[Any]]:
        return [[self.value(k, f"{where}.key"), self.value(v, f"{where}[{k!r}]")] for k, v in dict.items(values)]

    def _shared(self, value: Any, where: str) -> Any:
        """Writes a value that can be changed in place: once, and then as a reference."""
        if id(value) in self.met:
            self.twice.add(id(value))
            return {"$ref": self.met[id(value)]}
        number = self.met[id(value)] = len(self.met)
        node = self._changeable(value, where)
        if id(value) not in self.repeated:
            return node["$list"] if type(value) is list else node
        return {**node, "$id": number}

    def _changeable(self, value: Any, where: str) -> dict[str, Any]:
        kind = type(value)
        for tag, mapping in MAPPINGS.items():
            if kind is mapping:
                return {tag: self._pairs(value, where)}
        for tag, space in SPACES.items():
            if kind is space:
                return {tag: self._pairs(vars(value), where)}
        if kind is deque:
            return {"$deque": [value.maxlen, self._items(value, where)]}
        if kind is defaultdict:
            factory = None if value.default_factory is None else self.value(value.default_factory, where)
            return {"$default_dict": [factory, self._pairs(value, where)]}
        for tag, sequence in SEQUENCES.items():
            if kind is sequence:
                return {tag: self._items(_in_order(value), where)}
        return self._record(value, where)

    def _held(self, value: Any, where: str) -> Any:
        """Writes what belongs to the network, and what has a name."""
        if isinstance(value, Tensor):
            return {"$tensor": self.tensor(value, where)}
        if isinstance(value, np.ndarray):
            try:
                return {"$array": self.tensor(torch.from_numpy(np.ascontiguousarray(value)), where)}
            except TypeError as error:
                raise StoreError(f"{where} is an array of {value.dtype}, which can't be saved") from error
        if isinstance(value, nn.Module):
            path = self.modules.get(id(value))
            return {"$hidden": self.hidden(value, where)} if path is None else {"$module": path}
        if isinstance(value, weakref.ref) and isinstance(value(), (nn.Module, Tensor)):
            return {"$weak": self.value(value(), where)}
        if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
            name = value.__func__.__name__
            if self.admission.method(value.__self__, name) is value.__func__:
                return {"$method": [self.value(value.__self__, where), name]}
        if type(value) is functools.partial:
            function = self.value(value.func, where)
            args, kwargs = self._items(value.args, where), self._pairs(value.keywords, where)
            self._bindable(value, where)
            return {"$partial": [function, {"$tuple": args}, {"$dict": kwargs}]}
        if isinstance(value, torch.Generator) and value.device.type == "cpu":
            return {"$generator": [str(value.device), self.tensor(value.get_state(), where)]}
        return self._named(value, where)

    def _bindable(self, value: functools.partial[Any], where: str) -> None:
        if not bindable(self.admission, value.func, value.args, value.keywords):
            raise StoreError(
                f"{where} binds more than numbers to {value.func!r}, which is not one of the listed functions"
            )

    def _named(self, value: Any, where: str) -> Any:
        if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
            name = pure.name_of(value) or name_of(value, where)  # type: ignore[arg-type]
            try:
                self.admission.callable(name)
            except StoreError as error:
                raise StoreError(f"{where}: {error}") from error
            return {"$import": name}
        if isinstance(value, (types.MethodType, types.ModuleType)) or is_closed(type(value)):
            raise StoreError(
                f"{where} is a {type(value).__module__}.{type(value).__name__}, which can't be written as JSON"
            )
        return self._shared(value, where)

    def _record(self, value: Any, where: str) -> dict[str, Any]:
        cls = type(value)
        name = name_of(cls, where)
        try:
            self.admission.record(name)
        except StoreError as error:
            raise StoreError(f"{where} is a {cls.__module__}.{cls.__qualname__}: {error}") from error
        state = {key: v for key, v in _state(value).items() if not recomputed(cls, key)}
        for key, held in state.items():
            check_attribute(cls, key, held)
        fields = [[key, self.value(held, f"{where}.{key}")] for key, held in state.items()]
        content = self._pairs(value, where) if isinstance(value, dict) else None  # after the fields, as it is read
        return {"$record": [name, fields, content]}


def _small(value: Any) -> dict[str, Any] | None:
    """Plain values that need a tag."""
    for tag, kind in TORCH.items():
        if isinstance(value, kind):
            return {tag: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"$device": str(value)}
    if type(value) is complex:
        return {"$complex": repr(value)}
    if type(value) is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if type(value) is range:
        return {"$range": [value.start, value.stop, value.step]}
    if value is Ellipsis:
        return {"$ellipsis": None}
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return {"$number": [value.dtype.name, repr(value.item())]}
    if isinstance(value, np.dtype) and value.kind in "biufc":
        return {"$numpy": value.name}
    if isinstance(value, pathlib.PurePath):
        return {"$path": str(value)}
    if isinstance(value, RemovableHandle):
        return {"$handle": None}
    if type(value) is logging.Logger:
        return {"$logger": value.name}
    return None


def _in_order(values: Iterable[Any]) -> Iterable[Any]:
    """Sets in an order that does not change from one process to the next."""
    return sorted(values, key=repr) if isinstance(values, (set, frozenset)) else values


def _state(value: Any) -> dict[str, Any]:
    """The `__dict__` of an object, and what its slots hold."""
    state: dict[str, Any] = {}
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and isinstance(vars(base).get(name), types.MemberDescriptorType):
                try:
                    state[name] = vars(base)[name].__get__(value)
                except AttributeError:  # never set
                    continue
    with contextlib.suppress(AttributeError):
        state.update(object.__getattribute__(value, "__dict__"))
    return state
