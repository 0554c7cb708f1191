"""Registries of named records, which the modules of a package add when they are imported.

A module of the package adds its record with no edit elsewhere; a user's own code is named `file.py:Name` instead (see
`user_code`). Enters a record, leaves the record of a name. It knows nothing of what the records do.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationInfo

from .messages import shown, unknown
from .strict_specs import checked_by, only_read


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Configured(Named, Protocol):
    @property
    def spec(self) -> type[BaseModel]: ...


R = TypeVar("R", bound=Named)
C = TypeVar("C", bound=Configured)


class Registry(Mapping[str, R], Generic[R]):
    """Records of one kind by their names, in order. The modules of `package` are imported when it is first asked.

    Args:
        kind: What messages call a record.
        package: The package whose modules add records.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._records: dict[str, R] = {}
        self._complete = False

    def add(self, record: R) -> R:
        """Adds a record and returns it. Raises ValueError if its name is registered already."""
        if record.name in self._records:
            article = "an" if self.kind[0] in "aeiou" else "a"
            raise ValueError(f"{article} {self.kind} named {record.name!r} is registered already")
        self._records[record.name] = record
        return record

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Adds what is added inside the `with` statement for as long as it lasts: afterwards the registry is as before.

        For tests of your own entries, and for notebooks, whose cells are run again.

        Raises:
            ImportError: A module of the package can't be imported; all are, so that none adds its record later.
        """
        self._import()
        records = dict(self._records)
        try:
            yield
        finally:
            self._records = records

    def complain(self, name: object) -> str:
        """The message for an unknown name, with names that are similar."""
        return unknown(self.kind, name, self)

    @property
    def names_so_far(self) -> tuple[str, ...]:
        """The names that are registered already; nothing is imported for it."""
        return tuple(self._records)

    def __getitem__(self, name: str) -> R:
        self._import()
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        self._import()
        return iter(sorted(self._records))

    def __len__(self) -> int:
        self._import()
        return len(self._records)

    def _import(self) -> None:
        if self._complete:
            return
        self._complete = True
        for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
            importlib.import_module(f"{self.package}.{module.name}")


class SpecRegistry(Registry[C]):
    """Records whose specs are parts of a recipe, which is read without importing torch.

    Args:
        kind: What messages call a record.
        package: The package whose modules add records.
        variable: The name that the registry has in Python: a module of the package that adds to it says `VARIABLE.add`.
        specs: Of the records whose modules import torch, by name.
    """

    def __init__(
        self, kind: str, package: str, variable: str, specs: Mapping[str, type[BaseModel]] = types.MappingProxyType({})
    ) -> None:
        super().__init__(kind, package)
        self.variable, self.specs = variable, specs

    def parser(self, key: str, own: type[BaseModel]) -> Callable[[Any, ValidationInfo], Any]:
        """Makes a function that turns a part of a recipe into its spec.

        Args:
            key: where the name stands in a mapping; a value that is text is the name alone.
            own: the spec for a name that is code of the user's, `file.py:Name`.

        Returns:
            A function for `BeforeValidator`, which raises ValueError.
        """

        def parse(value: Any, info: ValidationInfo) -> Any:
            if isinstance(value, BaseModel):
                return value
            if isinstance(value, str):
                value = {key: value}
            specs = self._specs(only_read(info))
            if not isinstance(value, Mapping):
                raise ValueError(f"{shown(value)} names none of {', '.join(specs)}: give {key} and its keys")
            if key not in value:
                raise ValueError(f"{key} is missing: give one of {', '.join(specs)}, or file.py:name")
            name = value[key]
            if isinstance(name, str) and name in specs:
                return checked_by(specs[name], value, info)
            if isinstance(name, str) and ":" in name:
                return checked_by(own, value, info)
            raise ValueError(unknown(self.kind, name, specs))

        return parse

    def _specs(self, light: bool) -> dict[str, type[BaseModel]]:
        """The specs by name, in order; `light`: without importing modules that only add what `specs` has."""
        if not light or self._complete or self._has_more():
            self._import()
        added = {name: record.spec for name, record in self._records.items()}
        return dict(sorted({**self.specs, **added}.items()))

    def _has_more(self) -> bool:
        """Whether a module that was put into the package may add a record that `specs` lacks."""
        package = sys.modules.get(self.package) or importlib.util.find_spec(self.package)
        folders = getattr(package, "__path__", None) or getattr(package, "submodule_search_locations", None)
        for module in pkgutil.iter_modules(folders):
            if module.name in self.specs or f"{self.package}.{module.name}" in sys.modules:
                continue
            finder: Any = module.module_finder
            spec = finder.find_spec(module.name)
            text = spec.loader.get_source(module.name) if spec is not None else None
            if text is None or f"{self.variable}.add" in text:
                return True
        return False
