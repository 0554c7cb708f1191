"""Packages whose names are imported when they are first used, and packages that are called like a function."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def names_of(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Makes the `__getattr__` of a package.

    Args:
        package: Its `__name__`.
        places: For each name that the package offers, the module inside it that defines it.

    Returns:
        A function that takes a name and returns its value, which it also stores in the package. It knows the names of
        modules inside too, and raises AttributeError for others.
    """

    def find(name: str) -> Any:
        if name in places:
            value = getattr(importlib.import_module(f".{places[name]}", package), name)
            setattr(sys.modules[package], name, value)
            return value
        if not name.startswith("__") and importlib.util.find_spec(f"{package}.{name}") is not None:
            return importlib.import_module(f".{name}", package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


class CallablePackage(ModuleType):
    """A package that is called like its function of the same name, and still shows what is inside."""

    __wrapped__: Callable[..., Any]  # where `inspect.signature` looks

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        return importlib.import_module, (self.__name__,)  # a function can be pickled, for another process: so can this


def call_like(package: str, function: Callable[..., Any]) -> None:
    """Makes a package callable: `structprune.plan(…)` is `structprune.plan.planning.plan(…)`.

    Were the function put in the package's place, `structprune.plan.allocations` could not be reached any more.

    Args:
        package: Its `__name__`.
        function: What a call of it calls. Its signature and its docstring become the package's, whose own docstring
            follows.
    """
    module = sys.modules[package]
    module.__class__ = CallablePackage
    module.__dict__.update(__wrapped__=function, __module__=function.__module__)
    module.__doc__ = f"{inspect.getdoc(function)}\n\nThe package: {module.__doc__}"
