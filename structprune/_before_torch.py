"""What must be prepared before torch and timm are imported.

`import timm` fails where torch is a CPU build and torchvision a stock wheel: that torchvision cannot load its
compiled ops beside such a torch, and then raises `operator torchvision::nms does not exist` because it registers
fake kernels for two of them. timm needs neither op, so declaring their names is enough. Where the ops do load,
nothing is declared.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_OPS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))
_kept: list[Any] = []  # the declaration ends with the object


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Finds nothing, and declares the ops when torchvision is first looked for."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            declare_torchvision_ops()


def prepare() -> None:
    """Prepares what can be prepared without importing torch."""
    # torch's threads wait for each other by spinning, for milliseconds. Where another process has one of the cores,
    # each of a network's many small ops then costs a time slice: training was 40 times slower here. A short spin costs
    # 10 % on an idle machine. It only counts if set before torch loads its OpenMP, and the user's own choice stays.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _BeforeTorchvision())


def declare_torchvision_ops() -> bool:
    """Declares torchvision's op names if its compiled ops can't be loaded. Returns whether it did."""
    spec = importlib.util.find_spec("torchvision")
    if _kept or spec is None or not spec.submodule_search_locations:
        return False
    import torch

    folder = Path(spec.submodule_search_locations[0])
    binaries = [path for path in folder.glob("_C*") if path.suffix in {".so", ".pyd", ".dylib"}]
    try:
        for binary in binaries:
            torch.ops.load_library(str(binary))
        if binaries and hasattr(torch.ops.torchvision, "nms"):
            return False
    except OSError:
        pass
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _OPS:
        library.define(schema)
    _kept.append(library)
    return True
