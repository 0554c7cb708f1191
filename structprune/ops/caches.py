"""What a model's code keeps between calls: grids by shape, masks by length, helpers under `lru_cache`.

A recording would find in a cache what an earlier call on real tensors left there, and record it as a constant that fits
one size only; and it would leave tensors without storage there, for the user's own calls to trip over.
"""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..modules import walk

_DICTS = (dict, OrderedDict, defaultdict)
_INTERNAL = frozenset(vars(nn.Module()))


@contextmanager
def apart(model: nn.Module, empty: bool) -> Iterator[None]:
    """Leaves the caches in the modules and classes of the model's code as they were; with `empty`, they start empty.

    So are names there (`global`s, class attributes) to which the code gave tensors without storage. What
    `functools.lru_cache` holds is dropped if the model's code asked it, or with `empty`: it is worked out again.
    """
    dicts, helpers = _found(model)
    before = [(held, dict(held)) for held in dicts]
    counts = [(helper, helper.cache_info()) for helper in helpers]
    names = [(owner, dict(vars(owner))) for owner in _owners(model)]
    if empty:
        for held in dicts:
            if _is_cache(held):
                held.clear()
        for helper in helpers:
            helper.cache_clear()
    try:
        yield
    finally:
        for owner, named in names:
            for name, value in list(vars(owner).items()):
                if value is not named.get(name) and _has_meta(value):
                    setattr(owner, name, named[name]) if name in named else delattr(owner, name)
        for held, was in before:
            if len(held) != len(was) or any(held.get(key) is not value for key, value in was.items()):
                held.clear()
                held.update(was)
        for helper, info in counts:
            if empty or helper.cache_info().misses != info.misses:
                helper.cache_clear()


def emptied(model: nn.Module) -> None:
    """Empties the dicts of tensors that the modules of a copy keep by number, shape or the like."""
    for _, module in walk(model):
        for name, value in vars(module).items():
            if name not in _INTERNAL and type(value) in _DICTS and _is_cache(value):
                value.clear()


def _is_cache(held: dict[Any, Any]) -> bool:
    return bool(held) and not any(isinstance(key, str) for key in held) and any(map(_has_tensor, held.values()))


def _has_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and any(map(_has_tensor, value)))


def _has_meta(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_meta
    return isinstance(value, (list, tuple)) and any(map(_has_meta, value))


def _owners(model: nn.Module) -> list[Any]:
    """The classes of the user's modules, and the Python modules that they are defined in."""
    classes = {cls for _, module in walk(model) for cls in type(module).__mro__ if _is_users(cls.__module__)}
    homes = {cls.__module__ for cls in classes}
    return [*classes, *(sys.modules[name] for name in homes if name in sys.modules)]


def _found(model: nn.Module) -> tuple[list[dict[Any, Any]], list[Any]]:
    """The dicts and the cached helpers that the code of the model's modules can name."""
    spaces: list[Any] = [vars(owner) for owner in _owners(model)]
    dicts: dict[int, dict[Any, Any]] = {}
    helpers: dict[int, Any] = {}
    for space in spaces:
        for name, value in list(space.items()):
            if type(value) in _DICTS and not name.startswith("__"):
                dicts[id(value)] = value
            elif isinstance(value, functools._lru_cache_wrapper) and _is_users(value.__module__ or ""):
                helpers[id(value)] = value
    return list(dicts.values()), list(helpers.values())


def _is_users(module: str) -> bool:
    return module.partition(".")[0] not in ("torch", "builtins", "functools", "typing", "collections")
