"""What has to be settled before torch and timm are imported.

`import timm` fails where torch is a CPU build and torchvision a stock wheel: that torchvision cannot load its
compiled ops beside such a torch, and then raises `operator torchvision::nms does not exist` because it registers
fake kernels for two of them. timm needs neither op, so declaring their names is enough. Where the ops do load,
nothing is declared.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

# torch's threads wait for each other by spinning, for milliseconds. Where another process has one of the cores, each
# of a network's many small ops then costs a time slice: training was 40 times slower here. A short spin costs 10 %
# on an idle machine. It only counts if set before torch loads its OpenMP, and never overrides the user's choice.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch

_OPS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))
_library: torch.library.Library | None = None  # kept alive: the declaration ends with the object


def declare_torchvision_ops() -> bool:
    """Declares torchvision's op names if its compiled ops cannot be loaded; True if it did."""
    global _library
    spec = importlib.util.find_spec("torchvision")
    if _library is not None or spec is None or not spec.submodule_search_locations:
        return False
    folder = Path(spec.submodule_search_locations[0])
    binaries = [path for path in folder.glob("_C*") if path.suffix in {".so", ".pyd", ".dylib"}]
    try:
        for binary in binaries:
            torch.ops.load_library(str(binary))
        if binaries and hasattr(torch.ops.torchvision, "nms"):
            return False
    except OSError:
        pass
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _OPS:
        _library.define(schema)
    return True
