"""The names that a recipe may use, known without importing torch with what they name.

What users' code has registered is known where it was: that code has imported the registry.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationInfo

from ..names import unknown
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
        known = {*self.own, *self._so_far()} if only_read(info) else {*self.registered()}
        if name not in known:
            raise ValueError(unknown(self.kind, name, known))
        return name

    def _so_far(self) -> Mapping[str, object]:
        """What is registered already, where the registry has been imported."""
        registry: Mapping[str, object] = getattr(sys.modules.get(self.module), self.registry, {})
        return registry


CRITERIA = Names(
    "criterion",
    "structprune.criteria",
    "CRITERIA",
    (
        "apoz",
        "bn_expectation",
        "bn_variance",
        "chip",
        "fpgm",
        "fpgm_mix",
        "group_l1",
        "group_l2",
        "l1",
        "l1_greedy",
        "l2",
        "obs",
        "random",
        "slimming",
        "taylor",
        "taylor_activation",
        "thinet",
        "thinet_forward",
        "variance",
    ),
)
COMBINE = Names("way to combine", "structprune.criteria", "COMBINE", ("leading", "max", "mean", "normalised", "sum"))
ALLOCATIONS = Names(
    "allocation", "structprune.plan", "ALLOCATIONS", ("global", "knapsack", "sensitivity", "threshold", "uniform")
)
ENGINES = Names("engine", "structprune.bench.engines", "ENGINES", ("onnxruntime", "openvino", "torch", "torch.compile"))
