"""The stages of a run, one file each or a few that belong together; every module here registers its own.

`model` → `data` → `traced` → `costs` → `form` → `graph` → `train` → `early` → `dense_onnx` → `scores` → `scan` →
`widths` → `rank` → `plan` → `compose` → `cut` → `check` → `recover` → `restart` → `finetune` → `files` → `gate` →
`int8` → `timing` → `report`; what is measured of quality stands between them. A schedule repeats those from `scores` to
`finetune` (see `run.rounds`).
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
