"""structprune: structured filter pruning, proven against its plan and measured on the CPU.

What a name here stands for is imported when it is first asked for: a command that only prints its help loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _before_torch
from .lazy_imports import names_of

if TYPE_CHECKING:
    from . import cost as cost
    from . import criteria as criteria
    from . import data as data
    from . import errors as errors
    from . import models as models
    from . import recipe as recipe
    from . import runtimes as runtimes
    from . import tasks as tasks
    from .callable_packages import PlanPackage, RecoverPackage, RunPackage, VerifyPackage
    from .criteria import criterion, score, sensitivity
    from .export import export_onnx
    from .graph import trace
    from .records import Plan
    from .runtimes import benchmark
    from .store import load, save
    from .surgery import prune

    plan: PlanPackage
    recover: RecoverPackage
    run: RunPackage
    verify: VerifyPackage

__version__ = "0.2.0"
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

_PLACES = {  # of the names that no package inside has; those are called like their function (lazy_imports.call_like)
    "Plan": "records",
    "benchmark": "runtimes",
    "criterion": "criteria",
    "export_onnx": "export",
    "load": "store",
    "prune": "surgery",
    "save": "store",
    "score": "criteria",
    "sensitivity": "criteria",
    "trace": "graph",
}
if not TYPE_CHECKING:  # for which any name would be one of ours
    __getattr__ = names_of(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_before_torch.prepare()
