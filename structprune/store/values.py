"""Attributes as JSON and back: plain values, containers, and what a module refers to.

A value that JSON has stands as it is; any other is an object of one tag, `{"$tuple": [...]}`. What can be changed in
place and is met twice carries an `$id` where it is met first and is a `$ref` after that, so that it is one thing again
(a config that every layer holds, a dict that one layer fills and another reads).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import enum
import functools
import logging
import math
import pathlib
import struct
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import StoreError
from . import pure
from .admission import Admission, check_attribute, is_closed, name_of, recomputed

_SPACES: dict[str, type] = {"$namespace": types.SimpleNamespace, "$arguments": argparse.Namespace}
_MAPPINGS: dict[str, Any] = {"$dict": dict, "$ordered_dict": OrderedDict, "$counter": Counter}
_SEQUENCES: dict[str, Any] = {"$list": list, "$set": set, "$deque": deque}
_FIXED: dict[str, Any] = {"$tuple": tuple, "$frozenset": frozenset, "$size": torch.Size}
_PLAIN = (int, float, bool, complex, type(None), torch.dtype, torch.device)
_TORCH = {"$dtype": torch.dtype, "$layout": torch.layout, "$memory_format": torch.memory_format}
_MUTABLE = (list, dict, set, deque, types.SimpleNamespace, argparse.Namespace)


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
        self.repeated = repeated  # what a first pass met twice
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
        if isinstance(value, _MUTABLE):
            return self._shared(value, where)
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            name = name_of(kind, where)
            self.admission.record(name)
            return {"$named_tuple": [name, self._items(value, where)]}
        for tag, fixed in _FIXED.items():
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
        """What can be changed in place: written once."""
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
        for tag, mapping in _MAPPINGS.items():
            if kind is mapping:
                return {tag: self._pairs(value, where)}
        for tag, space in _SPACES.items():
            if kind is space:
                return {tag: self._pairs(vars(value), where)}
        if kind is deque:
            return {"$deque": [value.maxlen, self._items(value, where)]}
        if kind is defaultdict:
            factory = None if value.default_factory is None else self.value(value.default_factory, where)
            return {"$default_dict": [factory, self._pairs(value, where)]}
        for tag, sequence in _SEQUENCES.items():
            if kind is sequence:
                return {tag: self._items(_in_order(value), where)}
        return self._record(value, where)

    def _held(self, value: Any, where: str) -> Any:
        """What belongs to the network, and what is found by name."""
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
    for tag, kind in _TORCH.items():
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


def bindable(admission: Admission, function: Any, args: Iterable[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a partial may hold these: listed functions and layers take data and what is listed, others numbers only,
    as do Python's own, which call methods of what they are given."""
    values = (*args, *kwargs.values())
    if not admission.listed(function) or (pure.name_of(function) or "").startswith(_CALLING):
        return all(map(_numbers, values))
    return all(_is_data(admission, value) for value in values)


_CALLING = ("builtins:", "operator:", "collections:")


def _is_data(admission: Admission, value: Any) -> bool:
    """Data, or what may itself be given anything."""
    if type(value) in (tuple, list, set, frozenset):
        return all(_is_data(admission, item) for item in value)
    if type(value) is dict:
        return all(_is_data(admission, item) for item in value.values())
    if isinstance(value, functools.partial):
        return admission.listed(value.func)
    data = (*_PLAIN, str, Tensor, np.ndarray, torch.Generator, enum.Enum)
    return isinstance(value, data) or admission.listed(value)


def _numbers(value: Any) -> bool:
    return all(map(_numbers, value)) if type(value) in (tuple, list) else isinstance(value, _PLAIN)


class Decoder:
    """JSON to values. `modules` are those of the tree by path; `tensor` and `hidden` read what the encoder wrote."""

    def __init__(
        self,
        admission: Admission,
        modules: dict[str, nn.Module],
        tensor: Callable[[Any], Tensor],
        hidden: Callable[[Any], nn.Module],
    ) -> None:
        self.admission, self.modules, self.tensor, self.hidden = admission, modules, tensor, hidden
        self.shared: dict[int, Any] = {}

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.value(v) for v in value]
        if not isinstance(value, dict):
            return value
        number = value.get("$id")
        ((tag, body),) = ((k, v) for k, v in value.items() if k != "$id")
        if tag == "$ref":
            return self.shared[body]
        if tag in _MAPPINGS or tag in _SEQUENCES or tag in _SPACES or tag in ("$default_dict", "$record"):
            made = self._empty(tag, body)
            if number is not None:
                self.shared[number] = made
            self._fill(made, tag, body)
            return made
        if tag in _FIXED:
            return _FIXED[tag](self._keys(body) if tag == "$frozenset" else self._list(body))
        reader = _READERS.get(tag)
        if reader is None:
            raise StoreError(f"plan.json holds a value of unknown kind {tag!r}")
        return reader(self, body)

    def _list(self, body: Any) -> list[Any]:
        if not isinstance(body, list):
            raise StoreError(f"plan.json holds a {type(body).__name__} where a list belongs")
        return [self.value(v) for v in body]

    def _keys(self, body: Any) -> list[Any]:
        """Members of sets and keys of dicts: values whose hash is torch's or Python's own."""
        keys = self._list(body)
        if not all(map(_hashes, keys)):
            raise StoreError("plan.json uses an object as a key, which can't be read")
        return keys

    def _empty(self, tag: str, body: Any) -> Any:
        if tag == "$deque":
            return deque(maxlen=body[0])
        if tag == "$default_dict":
            factory = self.value(body[0])
            if not any(factory is kind for kind in (None, list, dict, set, int, float, bool, str, tuple, OrderedDict)):
                raise StoreError(f"plan.json holds a dict that fills itself by {factory!r}")
            return defaultdict(factory)
        if tag == "$record":
            cls = self.admission.record(body[0])
            return _allocated(cls)
        return {**_MAPPINGS, **_SEQUENCES, **_SPACES}[tag]()

    def _fill(self, made: Any, tag: str, body: Any) -> None:
        if tag == "$list":
            made.extend(self._list(body))
        elif tag == "$set":
            made.update(self._keys(body))
        elif tag == "$deque":
            made.extend(self._list(body[1]))
        elif tag == "$record":
            for key, item in body[1]:
                held = self.value(item)
                check_attribute(type(made), key, held)
                _set(made, key, held)
            if isinstance(made, dict):
                self._fill_dict(made, body[2])
        elif tag in _SPACES:
            for key, item in body:
                check_attribute(type(made), key, None)
                vars(made)[key] = self.value(item)
        else:
            self._fill_dict(made, body[1] if tag == "$default_dict" else body)

    def _fill_dict(self, made: dict[Any, Any], pairs: Any) -> None:
        put = OrderedDict.__setitem__ if isinstance(made, OrderedDict) else dict.__setitem__
        for key, item in pairs:
            (name,) = self._keys([key])
            put(made, name, self.value(item))

    def _partial(self, body: Any) -> Any:
        function, args, kwargs = (self.value(part) for part in body)
        callable_here = isinstance(function, (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType))
        if not callable_here or not isinstance(args, tuple) or type(kwargs) is not dict:
            raise StoreError(f"plan.json binds arguments to {function!r}, which is no function")
        if not bindable(self.admission, function, args, kwargs):
            raise StoreError(
                f"plan.json binds more than numbers to {function!r}, which is not one of the listed functions"
            )
        return functools.partial(function, *args, **kwargs)

    def _method(self, body: Any) -> Any:
        module = self.value(body[0])
        if not isinstance(module, nn.Module):
            raise StoreError("plan.json names a method of what is no module")
        return types.MethodType(self.admission.method(module, body[1]), module)

    def _named_tuple(self, body: Any) -> Any:
        cls = self.admission.record(body[0])
        items = self._list(body[1])
        if not issubclass(cls, tuple) or len(getattr(cls, "_fields", ())) != len(items):
            raise StoreError(f"{body[0]} is no tuple of {len(items)} names")
        return tuple.__new__(cls, items)

    def _weak(self, body: Any) -> Any:
        held = self.value(body)
        if not isinstance(held, (nn.Module, Tensor)):
            raise StoreError("plan.json refers weakly to what is no module and no tensor")
        return weakref.ref(held)

    def _generator(self, body: Any) -> torch.Generator:
        state = self.tensor(body[1])
        _, left, _, place = struct.unpack_from("<QiiQ", state.numpy().tobytes())
        if not (1 <= left <= 624 and left + place <= 625):  # else torch reads beyond its numbers
            raise StoreError("plan.json holds the state of a generator that torch never has")
        made = torch.Generator()
        made.set_state(state)
        return made


def _allocated(cls: type) -> Any:
    """An instance, without asking the class."""
    if issubclass(cls, OrderedDict):
        return OrderedDict.__new__(cls)
    if issubclass(cls, dict):
        return dict.__new__(cls)
    if issubclass(cls, tuple):
        raise StoreError(f"{cls.__qualname__} is a tuple, and no record")
    return object.__new__(cls)


def _set(made: Any, key: str, held: Any) -> None:
    """Past any `__setattr__` of the class."""
    slot = next((vars(b)[key] for b in type(made).__mro__ if key in vars(b)), None)
    if isinstance(slot, types.MemberDescriptorType):
        slot.__set__(made, held)
    else:
        object.__getattribute__(made, "__dict__")[key] = held


def _hashes(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_hashes, value))
    return isinstance(value, (*_PLAIN, str, bytes, enum.Enum, np.generic, type))


def _torch_constant(tag: str) -> Callable[[Decoder, Any], Any]:
    def read(_: Decoder, body: Any) -> Any:
        found = vars(torch).get(body)
        if not isinstance(found, _TORCH[tag]):
            raise StoreError(f"{body} is not a {tag[1:]}")
        return found

    return read


def _number(_: Decoder, body: Any) -> Any:
    kind = _numpy(_, body[0])
    if not isinstance(body[1], str) or len(body[1]) > 100:
        raise StoreError(f"{body} is not a number of numpy's")
    parse: Any = {"b": lambda text: text == "True", "f": float, "c": complex}.get(kind.kind, int)
    return kind.type(parse(body[1]))


def _numpy(_: Decoder, body: Any) -> Any:
    if not isinstance(body, str) or not body.isalnum() or np.dtype(body).kind not in "biufc":
        raise StoreError(f"{body} is not a dtype of numpy's")
    return np.dtype(body)


def _text(body: Any) -> str:
    if not isinstance(body, str):
        raise StoreError(f"plan.json holds a {type(body).__name__} where a string belongs")
    return body


def _enum(decoder: Decoder, body: Any) -> Any:
    return decoder.admission.enumeration(body[0]).__members__[body[1]]


_READERS: dict[str, Callable[[Decoder, Any], Any]] = {
    **{tag: _torch_constant(tag) for tag in _TORCH},
    "$float": lambda _, body: float(body),
    "$complex": lambda _, body: complex(body),
    "$bytes": lambda _, body: base64.b64decode(body, validate=True),
    "$range": lambda _, body: range(*body),
    "$slice": lambda d, body: slice(*d._list(body)),
    "$ellipsis": lambda _, body: Ellipsis,
    "$device": lambda _, body: torch.device(_text(body)),
    "$path": lambda _, body: pathlib.Path(_text(body)),
    "$logger": lambda _, body: logging.getLogger(_text(body)),
    "$handle": lambda _, body: RemovableHandle(OrderedDict()),  # of no hook: those are registered anew
    "$number": _number,
    "$numpy": _numpy,
    "$enum": _enum,
    "$tensor": lambda d, body: d.tensor(body),
    "$array": lambda d, body: d.tensor(body).numpy(),
    "$module": lambda d, body: d.modules[body],
    "$hidden": lambda d, body: d.hidden(body),
    "$weak": Decoder._weak,
    "$method": Decoder._method,
    "$partial": Decoder._partial,
    "$import": lambda d, body: d.admission.callable(body),
    "$named_tuple": Decoder._named_tuple,
    "$generator": Decoder._generator,
}
