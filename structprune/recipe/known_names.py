"""The names that a recipe may use, read without importing what they name, or torch.

They are read off the calls that register them, in the files beside a registry, so a new file there is known at once.
Names that a user's code registered are known too, as that code has imported the registry.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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

    def check(self, name: str, info: ValidationInfo) -> str:
        """Returns the name. Raises ValueError if it is unknown. A recipe that is only read imports no registry."""
        known = {*self.own, *self.so_far()} if only_read(info) else {*self.registered()}
        if name not in known:
            raise ValueError(unknown(self.kind, name, known))
        return name

    def so_far(self) -> Iterable[str]:
        """What is registered already, if the registry has been imported."""
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
