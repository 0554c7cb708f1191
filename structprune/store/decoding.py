"""JSON to values (see `value_kinds`): whoever wrote it is not trusted."""

from __future__ import annotations

import base64
import enum
import functools
import logging
import pathlib
import struct
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import StoreError
from .admission import Admission, check_attribute
from .value_kinds import FIXED, MAPPINGS, PLAIN, SEQUENCES, SPACES, TORCH, bindable


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
        if tag in MAPPINGS or tag in SEQUENCES or tag in SPACES or tag in ("$default_dict", "$record"):
            container = self._empty(tag, body)
            if number is not None:
                self.shared[number] = container
            self._fill(container, tag, body)
            return container
        if tag in FIXED:
            return FIXED[tag](self._keys(body) if tag == "$frozenset" else self._list(body))
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
        return {**MAPPINGS, **SEQUENCES, **SPACES}[tag]()

    def _fill(self, container: Any, tag: str, body: Any) -> None:
        if tag == "$list":
            container.extend(self._list(body))
        elif tag == "$set":
            container.update(self._keys(body))
        elif tag == "$deque":
            container.extend(self._list(body[1]))
        elif tag == "$record":
            for key, item in body[1]:
                field = self.value(item)
                check_attribute(type(container), key, field)
                _set(container, key, field)
            if isinstance(container, dict):
                self._fill_dict(container, body[2])
        elif tag in SPACES:
            for key, item in body:
                check_attribute(type(container), key, None)
                vars(container)[key] = self.value(item)
        else:
            self._fill_dict(container, body[1] if tag == "$default_dict" else body)

    def _fill_dict(self, container: dict[Any, Any], pairs: Any) -> None:
        put = OrderedDict.__setitem__ if isinstance(container, OrderedDict) else dict.__setitem__
        for key, item in pairs:
            (name,) = self._keys([key])
            put(container, name, self.value(item))

    def _partial(self, body: Any) -> Any:
        function, args, kwargs = (self.value(part) for part in body)
        callable_here = isinstance(function, (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType))
        if not callable_here or not isinstance(args, tuple) or type(kwargs) is not dict:
            raise StoreError(f"plan.json binds arguments to {function!r}, which is not a function")
        if not bindable(self.admission, function, args, kwargs):
            raise StoreError(
                f"plan.json binds more than numbers to {function!r}, which is not one of the listed functions"
            )
        return functools.partial(function, *args, **kwargs)

    def _method(self, body: Any) -> Any:
        module = self.value(body[0])
        if not isinstance(module, nn.Module):
            raise StoreError("plan.json names a method of something that is not a module")
        return types.MethodType(self.admission.method(module, body[1]), module)

    def _named_tuple(self, body: Any) -> Any:
        cls = self.admission.record(body[0])
        items = self._list(body[1])
        if not issubclass(cls, tuple) or len(getattr(cls, "_fields", ())) != len(items):
            raise StoreError(f"{body[0]} is not a tuple of {len(items)} names")
        return tuple.__new__(cls, items)

    def _weak(self, body: Any) -> Any:
        target = self.value(body)
        if not isinstance(target, (nn.Module, Tensor)):
            raise StoreError("plan.json refers weakly to something that is neither a module nor a tensor")
        return weakref.ref(target)

    def _generator(self, body: Any) -> torch.Generator:
        state = self.tensor(body[1])
        _, left, _, place = struct.unpack_from("<QiiQ", state.numpy().tobytes())
        if not (1 <= left <= 624 and left + place <= 625):  # else torch reads beyond its numbers
            raise StoreError("plan.json holds the state of a generator that torch never has")
        generator = torch.Generator()
        generator.set_state(state)
        return generator


def _allocated(cls: type) -> Any:
    """An instance, made without running the class's code."""
    if issubclass(cls, OrderedDict):
        return OrderedDict.__new__(cls)
    if issubclass(cls, dict):
        return dict.__new__(cls)
    if issubclass(cls, tuple):
        raise StoreError(f"{cls.__qualname__} is a tuple, not a record")
    return object.__new__(cls)


def _set(record: Any, key: str, value: Any) -> None:
    """Sets a field of a record, past any `__setattr__` of the class."""
    slot = next((vars(b)[key] for b in type(record).__mro__ if key in vars(b)), None)
    if isinstance(slot, types.MemberDescriptorType):
        slot.__set__(record, value)
    else:
        object.__getattribute__(record, "__dict__")[key] = value


def _hashes(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_hashes, value))
    return isinstance(value, (*PLAIN, str, bytes, enum.Enum, np.generic, type))


def _torch_constant(tag: str) -> Callable[[Decoder, Any], Any]:
    def read(_: Decoder, body: Any) -> Any:
        constant = vars(torch).get(body)
        if not isinstance(constant, TORCH[tag]):
            raise StoreError(f"{body} is not a {tag[1:]}")
        return constant

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
    **{tag: _torch_constant(tag) for tag in TORCH},
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
