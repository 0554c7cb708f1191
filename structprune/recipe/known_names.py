"""The names that a recipe may use, read without importing what they name, or torch.

They are read off the syntax of what registers them, in the files beside a registry, so a new file there is known at
once. Names that a user's code registered are known too, as that code has imported the registry.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import ValidationInfo

from ..messages import unknown
from ..registry import Registry
from ..strict_specs import only_read


@dataclass(frozen=True)
class Names:
    """The names that can be used in one place.

    Attributes:
        kind: The kind of thing that they name, for messages.
        module: The module of the registry, which is complete once this is imported.
        registry: The registry's name there.
        own: The names that come with the package.
    """

    kind: str
    module: str
    registry: str
    own: tuple[str, ...]

    def registered(self) -> Mapping[str, object]:
        """The registry, imported if need be."""
        registry: Mapping[str, object] = getattr(importlib.import_module(self.module), self.registry)
        return registry

    def check(self, name: str, info: ValidationInfo, *others: str) -> str:
        """Returns a name that is registered or among `others`. Raises ValueError if it is neither.

        A recipe that is only read imports no registry.
        """
        known = {*others, *self.own, *self.so_far()} if only_read(info) else {*others, *self.registered()}
        if name not in known:
            raise ValueError(unknown(self.kind, name, known))
        return name

    def so_far(self) -> Iterable[str]:
        """What is registered already, if the registry has been imported."""
        registry = getattr(sys.modules.get(self.module), self.registry, ())
        return registry.names_so_far if isinstance(registry, Registry) else registry


def decorated_names(package: str, decorator: str) -> tuple[str, ...]:
    """The names that functions of a package are registered under: `@criterion("l1", …)`."""
    calls = (
        node
        for tree in _trees(package)
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        for node in function.decorator_list
        if isinstance(node, ast.Call) and _is_name(node.func, decorator)
    )
    return _texts(name for call in calls for name in islice(call.args, 1))


def added_names(package: str, registry: str) -> tuple[str, ...]:
    """The names of records that modules of a package add: `FORMATS.add(Format("pt2", …))`."""
    records = (
        record
        for tree in _trees(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add"
        if _is_name(node.func.value, registry)
        for record in islice(node.args, 1)
    )
    return _texts(name for record in records if isinstance(record, ast.Call) for name in islice(record.args, 1))


def _named(package: str) -> tuple[str, ...]:
    """What classes of a package say of their `name`."""
    lines = (
        line for tree in _trees(package) for node in tree.body if isinstance(node, ast.ClassDef) for line in node.body
    )
    return _texts(line.value for line in lines if isinstance(line, ast.Assign) and _is_name(line.targets[0], "name"))


def _trees(package: str) -> Iterator[ast.Module]:
    for file in (Path(__file__).parents[1] / package).glob("*.py"):
        yield ast.parse(file.read_bytes())


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _texts(nodes: Iterable[ast.expr]) -> tuple[str, ...]:
    values = (node.value for node in nodes if isinstance(node, ast.Constant))
    return tuple(sorted(value for value in values if isinstance(value, str)))


CRITERIA = Names("criterion", "structprune.criteria", "CRITERIA", decorated_names("criteria", "criterion"))
COMBINE = Names("way to combine", "structprune.criteria", "COMBINE", ("leading", "max", "mean", "normalised", "sum"))
ALLOCATIONS = Names("allocation", "structprune.plan", "ALLOCATIONS", decorated_names("plan", "allocation"))
ENGINES = Names("engine", "structprune.runtimes", "ENGINES", _named("runtimes/engines"))
FORMATS = Names("format", "structprune.export.format", "FORMATS", added_names("export/formats", "FORMATS"))
