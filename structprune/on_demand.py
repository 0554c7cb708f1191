"""Packages whose names are imported when they are first asked for, so that what a recipe says is read without torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any


def names_of(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package.

    Args:
        package: Its `__name__`.
        places: The module inside it, by each name that it offers.

    Returns:
        A function from a name to what it stands for, which is also put into the package; names of modules inside are
        known too. It raises AttributeError.
    """

    def find(name: str) -> Any:
        if name in places:
            found = getattr(importlib.import_module(f".{places[name]}", package), name)
            setattr(sys.modules[package], name, found)
            return found
        if not name.startswith("__") and importlib.util.find_spec(f"{package}.{name}") is not None:
            return importlib.import_module(f".{name}", package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
