"""The names that a recipe may use, known without importing torch with what they name.

They are read off the calls that register them, in the files beside a registry: one more file there is known at once.
What users' code has registered is known where it was: that code has imported the registry.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationInfo

from ..names import unknown
from ..registry import Registry
from ..specs import only_read


@dataclass(frozen=True)
class Names:
    """What can be named in one place.

    Attributes:
        kind: What messages call one.
        module: Where the registry is, complete once this is imported.
        registry: Its name there.
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

    def check(self, name: str, info: ValidationInfo) -> str:
        """The name. Raises ValueError where it is not known; a recipe that is only read imports no registry."""
        known = {*self.own, *self.so_far()} if only_read(info) else {*self.registered()}
        if name not in known:
            raise ValueError(unknown(self.kind, name, known))
        return name

    def so_far(self) -> Iterable[str]:
        """What is registered already, where the registry has been imported."""
        registry = getattr(sys.modules.get(self.module), self.registry, ())
        return registry.names_so_far if isinstance(registry, Registry) else registry


def _declared(package: str, beginning: str) -> tuple[str, ...]:
    """The names that stand in the files of a package where a pattern begins."""
    files = (Path(__file__).parents[1] / package).glob("*.py")
    texts = (file.read_text(encoding="utf-8") for file in files)
    return tuple(sorted(name for text in texts for name in re.findall(rf'^{beginning}"([^"]+)"', text, re.M)))


def _decorator(name: str) -> str:
    return rf"@{name}\(\s*"


CRITERIA = Names("criterion", "structprune.criteria", "CRITERIA", _declared("criteria", _decorator("criterion")))
COMBINE = Names("way to combine", "structprune.criteria", "COMBINE", ("leading", "max", "mean", "normalised", "sum"))
ALLOCATIONS = Names("allocation", "structprune.plan", "ALLOCATIONS", _declared("plan", _decorator("allocation")))
ENGINES = Names("engine", "structprune.runtimes", "ENGINES", _declared("runtimes/engines", "    name = "))
