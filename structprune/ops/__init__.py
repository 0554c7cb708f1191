"""The ground floor: runs a module and watches the ATen ops that it calls.

Enters: an `nn.Module` and inputs that it runs on (`Inputs`). Leaves: a recording (`Captured`), an FX graph of ATen
calls whose numbers know where they came from (`provenance`). `recorder` holds the modes, `forward_pass` runs a model
under one, `conditions` and `answers` note where the code chooses its path by a size or a value, and `laws` finds how a
number follows sizes. Nothing here knows of channels.
"""

from .forward_pass import Captured, capture
from .inputs import Inputs, outputs
from .nested import leaves_of, map_leaves
from .op_mode import OpMode, op_name

__all__ = ["Captured", "Inputs", "OpMode", "capture", "leaves_of", "map_leaves", "op_name", "outputs"]
