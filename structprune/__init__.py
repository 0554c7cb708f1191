"""structprune: structured filter pruning, proven against its plan and measured on the CPU.

What a name here stands for is imported when it is first asked for: a command that only prints its help loads no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import _compat
from .on_demand import names_of

if TYPE_CHECKING:
    from .criteria import criterion, score
    from .criteria.sensitivity import sensitivity
    from .export import export_onnx
    from .graph import trace
    from .plan import plan
    from .records import Plan
    from .recover import recover
    from .run import run
    from .runtimes import benchmark
    from .store import load, save
    from .surgery.prune import prune
    from .verify import verify

__version__ = "0.1.0"
__all__ = [
    "Plan",
    "benchmark",
    "criterion",
    "export_onnx",
    "load",
    "plan",
    "prune",
    "recover",
    "run",
    "save",
    "score",
    "sensitivity",
    "trace",
    "verify",
]

_PLACES = {
    "Plan": "records",
    "benchmark": "runtimes",
    "criterion": "criteria",
    "export_onnx": "export",
    "load": "store",
    "plan": "plan",
    "prune": "surgery",
    "recover": "recover",
    "run": "run",
    "save": "store",
    "score": "criteria",
    "sensitivity": "criteria",
    "trace": "graph",
    "verify": "verify",
}


class _Public:
    """A public name of this package; it stays the function where a package inside has the same name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.replaced: Any = None

    def __get__(self, package: ModuleType, owner: type) -> Any:
        if self.replaced is None:
            return getattr(importlib.import_module(f".{_PLACES[self.name]}", __name__), self.name)
        return self.replaced

    def __set__(self, package: ModuleType, value: Any) -> None:
        if not isinstance(value, ModuleType):  # which importing `structprune.plan.allocation` would put here
            self.replaced = value


_inside = names_of(__name__, {})


class _Package(ModuleType):
    """The public names, and the modules inside, imported on demand."""

    def __getattr__(self, name: str) -> Any:
        return _inside(name)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *__all__})


for _name in __all__:
    setattr(_Package, _name, _Public(_name))
sys.modules[__name__].__class__ = _Package
_compat.prepare()
