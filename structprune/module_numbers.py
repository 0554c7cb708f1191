"""The numbers that a module holds: its own attributes, its class's, and those inside a configuration or a dict.

A number's name is the path to it: `hidden_size`, `config.hidden_size` or `cfg.width`, whatever the containers on the
way are. Writing changes the module itself and what it holds, never its class.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_INTERNAL = frozenset(vars(nn.Module()))
_DEPTH = 3  # how far inside containers numbers are looked for
NOT_CONFIGURATIONS = (
    int,
    float,
    str,
    bytes,
    nn.Module,
    Tensor,
    type,
    types.ModuleType,
    types.FunctionType,
    types.MethodType,
    enum.Enum,
    np.ndarray,
    np.generic,
    torch.Generator,
)


def held_numbers(module: nn.Module, original: nn.Module, visited: set[int]) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of each whole number, and of each tuple or list of them.

    Args:
        module: whose numbers they are.
        original: what `module` was copied from. Containers that are one object in both are left out, as what is
            written to one would change the other.
        visited: ids of containers that were read already, as other modules share them with this one.
    """
    for name, value in list(vars(module).items()):
        if name not in _INTERNAL:
            yield from _numbers(name, value, vars(original).get(name), visited, _DEPTH)
    for name, value in _of_class(type(module)).items():
        if name not in vars(module):
            yield from _numbers(name, value, None, visited, _DEPTH)


def _numbers(name: str, value: Any, original: Any, visited: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if is_number(value) or _is_row(value):
        yield name, value
        return
    held = _fields(value) if depth else None
    if held is None or value is original or id(value) in visited:
        return
    visited.add(id(value))
    other = (_fields(original) if type(original) is type(value) else None) or {}
    for key, item in held.items():
        if isinstance(key, str) and key.isidentifier() and not key.startswith("__"):
            yield from _numbers(f"{name}.{key}", item, other.get(key), visited, depth - 1)


def is_number(value: Any) -> bool:
    """Whether this is a plain whole number, Python's or numpy's."""
    return type(value) is int or isinstance(value, np.integer)


def _is_row(value: Any) -> bool:
    return type(value) in (tuple, list) and bool(value) and all(is_number(item) for item in value)


def _fields(value: Any) -> dict[Any, Any] | None:
    """What a configuration or a dict holds by name; None for anything else."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, tuple):
        return value._asdict() if hasattr(value, "_asdict") else None
    if isinstance(value, NOT_CONFIGURATIONS) or type(value).__module__.partition(".")[0] == "torch":
        return None
    if not dataclasses.is_dataclass(value):
        return dict(vars(value)) if hasattr(value, "__dict__") else None
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if hasattr(value, f.name)}
    return {**fields, **getattr(value, "__dict__", {})}


def _of_class(cls: type) -> dict[str, Any]:
    """The attributes that a class and its bases, up to torch's own, set for all instances."""
    attributes: dict[str, Any] = {}
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] in ("torch", "builtins"):
            break
        for name, value in vars(base).items():
            if not name.startswith("_") and not hasattr(type(value), "__get__"):
                attributes.setdefault(name, value)
    return attributes


def read(module: Any, name: str) -> Any:
    """The value under a name; None if there is none."""
    value = module
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value


def write(module: nn.Module, name: str, value: Any) -> None:
    """Replaces the value under an existing name, keeping its kind of number or container."""
    first, *rest = name.split(".")
    if rest and first not in vars(module):
        setattr(module, first, copy.deepcopy(getattr(module, first)))  # which the class held for all
    _put(module, [first, *rest], value)


def _put(holder: Any, path: list[str], value: Any) -> Any:
    """Puts the value into the holder. Returns the holder, or a copy if it can't be changed."""
    first, *rest = path
    old = holder[first] if isinstance(holder, dict) else getattr(holder, first, None)
    new = _put(old, rest, value) if rest else _of_kind(old, value)
    if isinstance(holder, dict):
        dict.__setitem__(holder, first, new)  # past a subclass that can't be changed
    elif isinstance(holder, tuple):
        return holder._replace(**{first: new})  # type: ignore[attr-defined]
    elif new is not old:
        try:
            setattr(holder, first, new)
        except Exception:  # frozen, by whichever library
            object.__setattr__(holder, first, new)
    return holder


def _of_kind(old: Any, new: Any) -> Any:
    if type(old) in (tuple, list):
        return type(old)(_of_kind(a, b) for a, b in zip(old, new, strict=True))
    return type(old)(new) if isinstance(old, np.integer) and type(new) is int else new
